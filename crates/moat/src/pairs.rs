//! Files of `NAME=VALUE` lines, as shells, systemd and AWS's tools read them: with `export` or
//! quotes or without, with comments, and perhaps in sections.

/// The pairs of a file, or of one section of it.
pub(crate) struct Pairs<'a> {
    pairs: Vec<(&'a str, &'a str)>,
    has_sections: bool,
}

impl<'a> Pairs<'a> {
    /// Reads a file. If it has sections, only what stands in the one of that name counts.
    pub(crate) fn parse(text: &'a str, wanted: &str) -> Self {
        let has_sections = text.lines().any(|line| section(line).is_some());
        let mut here = !has_sections;
        let mut pairs = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = section(line) {
                here = name == wanted;
            } else if here && let Some((name, value)) = line.split_once('=') {
                let name = name.trim().trim_start_matches("export ").trim();
                pairs.push((name, value.trim().trim_matches(['"', '\''])));
            }
        }
        Self {
            pairs,
            has_sections,
        }
    }

    /// The value of a name, in whichever case it is written.
    pub(crate) fn get(&self, wanted: &str) -> Option<&'a str> {
        let found = self
            .pairs
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| *value)
    }

    /// Whether the file has sections, so that it mattered which one was wanted.
    pub(crate) const fn has_sections(&self) -> bool {
        self.has_sections
    }
}

fn section(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    // Configuration files of AWS say `profile` before the name.
    Some(inner.strip_prefix("profile ").map_or(inner, str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(text: &'a str, section: &str, name: &str) -> Option<&'a str> {
        Pairs::parse(text, section).get(name)
    }

    #[test]
    fn lines_are_read_as_shells_and_systemd_read_them() {
        let text = "# A=comment\n; A=comment\n export A = 'a=b' \nB=\"x y\"\nnonsense\n";
        assert_eq!(get(text, "any", "A"), Some("a=b"));
        assert_eq!(get(text, "any", "b"), Some("x y"));
        assert_eq!(get(text, "any", "nonsense"), None);
        assert!(!Pairs::parse(text, "any").has_sections());
    }

    #[test]
    fn of_sections_only_the_wanted_one_counts() {
        let text = "A=before\n[default]\nA=1\n[ profile lake ]\nA=2\n";
        assert_eq!(get(text, "default", "a"), Some("1"));
        assert_eq!(get(text, "lake", "a"), Some("2"));
        assert_eq!(get(text, "other", "a"), None);
        assert!(Pairs::parse(text, "other").has_sections());
    }
}
