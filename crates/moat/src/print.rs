//! Tables for people.

use std::io::Write;

use anyhow::Result;

/// Writes to standard output. A reader that went away (`| head`) is not an error.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Writes a line to standard output; `false` when nobody reads any more.
pub(crate) fn line(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true).map_err(Into::into),
    }
}

/// Writes raw bytes to standard output.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Lines that wait for standard output. A terminal or journal that takes nothing for longer than it
/// takes to make so many has no claim on the rest.
const LINES_WAITING_MAX: usize = 8192;

/// Writes lines to standard output from a thread of its own, so that who reads slowly slows nothing
/// but the output: lines that find no room are left out.
pub(crate) fn in_background() -> Box<dyn Fn(&str) + Send + Sync> {
    let (give, take) = std::sync::mpsc::sync_channel::<String>(LINES_WAITING_MAX);
    // Ends with the last sender. Nobody waits for it: what is served goes first.
    std::thread::spawn(move || {
        for line in take {
            if out(&line).is_err() {
                return;
            }
        }
    });
    Box::new(move |line| drop(give.try_send(line.to_owned())))
}

/// Writes an error with its causes to standard error, as one sentence.
pub(crate) fn error(error: &anyhow::Error) {
    // Nothing is left to do if even this can't be written.
    let _ = writeln!(std::io::stderr().lock(), "moat: {}", sentence(error));
}

/// Writes what somebody should know, and what stops nothing, to standard error.
pub(crate) fn warning(text: &str) {
    // Nothing is left to do if this can't be written.
    let _ = writeln!(std::io::stderr().lock(), "moat: warning: {text}");
}

/// An error and its causes, each once, as some say what caused them in their own words; and what to
/// do where that is the same for every command.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if text.ends_with(UNKNOWN_ISSUER) {
        text.push_str("; name the CA that signed the certificate (--ca, MOAT_KMS_CA)");
    }
    text
}

/// How a server's certificate is refused whose CA is not trusted.
const UNKNOWN_ISSUER: &str = "invalid peer certificate: UnknownIssuer";

/// Says that something was done, to a person or a script.
pub(crate) fn done(text: &str, as_json: bool) -> Result<()> {
    if as_json {
        return json(&serde_json::json!({ "done": text }));
    }
    out(&format!("{text}\n"))
}

/// Rows as a table, or as JSON objects whose members have the names of the heading.
pub(crate) fn rows(heading: &[&str], rows: Vec<Vec<String>>, as_json: bool) -> Result<()> {
    if !as_json {
        return out(&table(heading, &rows));
    }
    json(&rows.into_iter().map(|row| object(heading, row)).collect())
}

/// One row as a table, or as one JSON object.
pub(crate) fn row(heading: &[&str], row: Vec<String>, as_json: bool) -> Result<()> {
    if !as_json {
        return out(&table(heading, &[row]));
    }
    json(&object(heading, row))
}

fn object(heading: &[&str], row: Vec<String>) -> serde_json::Value {
    let names = heading.iter().map(|name| name.replace(' ', "_"));
    let values = row.into_iter().map(serde_json::Value::from);
    serde_json::Value::Object(names.zip(values).collect())
}

/// A number and what it counts.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Names and values, one pair a line.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// Writes one JSON value, indented for reading.
pub(crate) fn json(value: &serde_json::Value) -> Result<()> {
    out(&format!("{value:#}\n"))
}

/// Lays rows out in columns, two spaces apart, with a heading.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells
                .chain([heading[column].chars().count()])
                .max()
                .unwrap_or(0)
        })
        .collect();
    let heading: Vec<String> = heading.iter().map(|cell| cell.to_uppercase()).collect();
    std::iter::once(&heading)
        .chain(rows)
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}", width = *width))
                .collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_says_of_its_cause_is_not_said_again() {
        let cause = std::io::Error::other("the disk is full");
        let error = anyhow::Error::new(cause)
            .context("can't write f: the disk is full")
            .context("backup");
        assert_eq!(sentence(&error), "backup: can't write f: the disk is full");
    }

    #[test]
    fn one_thing_is_an_object_and_several_are_a_list() {
        let made = object(&["name", "created at"], vec!["a".into(), "b".into()]);
        assert_eq!(made, serde_json::json!({ "name": "a", "created_at": "b" }));
        assert_eq!(count(1, "key", "keys"), "1 key");
        assert_eq!(count(0, "key", "keys"), "0 keys");
        let pairs = [("a", "1".to_owned()), ("longer", "2".to_owned())];
        assert_eq!(fields(&pairs), "a       1\nlonger  2\n");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["longer".to_owned(), "2".to_owned()],
        ];
        assert_eq!(
            table(&["name", "n"], &rows),
            "NAME    N\na       1\nlonger  2\n"
        );
    }
}
