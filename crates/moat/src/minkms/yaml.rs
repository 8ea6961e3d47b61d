//! As much of YAML as MinKMS's configuration file is written in: maps and lists by indentation,
//! scalars on one line, comments. Anything else is an error that names its line.
//!
//! A library would read all of YAML for one file of ten lines; those that are maintained are few.

use anyhow::{Result, bail};

/// The deepest that maps and lists stand in each other.
const DEPTH_MAX: usize = 16;

/// A map or list that is open: the column where its entries begin, and its path.
struct Level {
    column: usize,
    path: String,
    /// How many items it has, if it is a list.
    items: Option<usize>,
}

/// Every scalar with its path: `tls.certs.0.key`. In the order in which they stand there.
pub(super) fn scalars(text: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut levels: Vec<Level> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = without_comment(line).trim_end();
        if line.trim().is_empty() || line == "---" {
            continue;
        }
        let number = number + 1;
        if line.contains('\t') {
            bail!("line {number}: indent with spaces, not tabs");
        }
        let mut column = line.len() - line.trim_start().len();
        let mut rest = line.trim_start();
        loop {
            let is_item = rest == "-" || rest.starts_with("- ");
            let path = enter(&mut levels, column, is_item);
            if levels.len() > DEPTH_MAX {
                bail!("line {number}: more than {DEPTH_MAX} levels");
            }
            if !is_item {
                if let Some(scalar) = entry(rest, &path, &mut levels, number)? {
                    found.push(scalar);
                }
                break;
            }
            let after = rest[1..].trim_start();
            column += rest.len() - after.len();
            rest = after;
            if rest.is_empty() {
                break;
            }
            if !rest.starts_with("- ") && !is_pair(rest) {
                found.push((path, scalar(rest, number)?));
                break;
            }
        }
    }
    Ok(found)
}

/// Closes what ended before `column`, opens what begins there, and gives the path of the entry.
fn enter(levels: &mut Vec<Level>, column: usize, is_item: bool) -> String {
    while let Some(level) = levels.last() {
        let ends = level.column > column
            // A list may stand in the column of the key that it belongs to.
            || (level.column == column && level.items.is_some() && !is_item);
        if !ends {
            break;
        }
        levels.pop();
    }
    let fits = levels
        .last()
        .is_some_and(|level| level.column == column && level.items.is_some() == is_item);
    if !fits {
        // The entry that was read last, if it had no value, is what this belongs to.
        let path = levels
            .last()
            .map_or(String::new(), |level| level.path.clone());
        levels.push(Level {
            column,
            path: path.clone(),
            items: is_item.then_some(0),
        });
    }
    let parent = match levels.len() {
        0 | 1 => String::new(),
        count => levels[count - 2].path.clone(),
    };
    let level = levels.last_mut().expect("one was pushed or was there");
    if let Some(items) = &mut level.items {
        level.path = join(&parent, &items.to_string());
        *items += 1;
        return level.path.clone();
    }
    parent
}

/// A line `key: value`. Without a value it opens what follows.
fn entry(
    text: &str,
    parent: &str,
    levels: &mut [Level],
    number: usize,
) -> Result<Option<(String, String)>> {
    let Some((key, value)) = text.split_once(':') else {
        bail!("line {number}: expected `name: value`");
    };
    let path = join(parent, key.trim().trim_matches(['"', '\'']));
    let level = levels.last_mut().expect("it was entered");
    level.path.clone_from(&path);
    let value = value.trim();
    if value.is_empty() {
        return Ok(None);
    }
    Ok(Some((path, scalar(value, number)?)))
}

fn is_pair(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(_, value)| value.is_empty() || value.starts_with(' '))
}

fn scalar(text: &str, number: usize) -> Result<String> {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            return match inner.strip_suffix(quote) {
                Some(inner) if !inner.contains(['\\', quote]) => Ok(inner.to_owned()),
                _ => bail!("line {number}: this quoted text is not understood"),
            };
        }
    }
    if text.starts_with(['[', '{', '|', '>', '&', '*', '!', '%', '@', '`']) {
        bail!("line {number}: write maps and lists on lines of their own, and texts on one line");
    }
    Ok(text.to_owned())
}

/// A `#` begins a comment at the beginning of a line or behind a space, outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && before == ' ' => return &line[..at],
            None if (c == '"' || c == '\'') && before == ' ' => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = scalars(text).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn maps_and_lists_are_read_by_their_indentation() {
        check(
            "a: 1\nb:\n  c: x y # z\n  d:\n    - k: 1\n      v: 'q # r'\n    - k: \"2\"\ne: h1:x\n",
            &[
                ("a", "1"),
                ("b.c", "x y"),
                ("b.d.0.k", "1"),
                ("b.d.0.v", "q # r"),
                ("b.d.1.k", "2"),
                ("e", "h1:x"),
            ],
        );
        // A list in the column of its key, items on lines below their dash, items that are scalars.
        check(
            "---\ntls:\n  certs:\n  - key: a\n    cert: b\n  ca: c\nl:\n- x\n- y\nm:\n  -\n    n: 1\n",
            &[
                ("tls.certs.0.key", "a"),
                ("tls.certs.0.cert", "b"),
                ("tls.ca", "c"),
                ("l.0", "x"),
                ("l.1", "y"),
                ("m.0.n", "1"),
            ],
        );
        check("", &[]);
    }

    #[test]
    fn what_is_not_understood_names_its_line() {
        for (text, line) in [
            ("a: 1\nb\n", "line 2"),
            ("a:\n\tb: 1\n", "line 2"),
            ("a: {b: 1}\n", "line 1"),
            ("a: |\n  x\n", "line 1"),
            ("a: \"x\n", "line 1"),
        ] {
            let error = scalars(text).unwrap_err().to_string();
            assert!(error.contains(line), "{text}: {error}");
        }
        let deep: String = (0..40).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(scalars(&deep).is_err());
    }
}
