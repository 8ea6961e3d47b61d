//! What the doctor found, and how it is told.

use serde_json::json;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing; nothing fails because of it.
    Note,
    /// Something fails, or will.
    Problem,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// The check that found it, a word for scripts.
    pub(crate) check: &'static str,
    /// What was found, a sentence.
    pub(crate) text: String,
    /// What to do, line by line.
    pub(crate) fix: Vec<String>,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default)]
pub(crate) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Notes that something is as it should be.
    pub(crate) fn fine(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(Level::Fine, check, text.into(), Vec::new());
    }

    /// Notes something worth knowing.
    pub(crate) fn note(&mut self, check: &'static str, text: impl Into<String>, fix: Vec<String>) {
        self.add(Level::Note, check, text.into(), fix);
    }

    /// Notes a problem.
    pub(crate) fn problem(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        fix: Vec<String>,
    ) {
        self.add(Level::Problem, check, text.into(), fix);
    }

    /// Whether nothing fails.
    pub(crate) fn is_fine(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level != Level::Problem)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let mark = match finding.level {
                Level::Fine => "ok      ",
                Level::Note => "note    ",
                Level::Problem => "PROBLEM ",
            };
            text.push_str(&format!("{mark}{}\n", finding.text));
            for line in &finding.fix {
                text.push_str(&format!("        {line}\n"));
            }
        }
        let problems = self
            .findings
            .iter()
            .filter(|f| f.level == Level::Problem)
            .count();
        text.push_str(&match problems {
            0 => "no problem found\n".to_owned(),
            1 => "1 problem found\n".to_owned(),
            n => format!("{n} problems found\n"),
        });
        text
    }

    /// For scripts.
    pub(crate) fn json(&self) -> serde_json::Value {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|finding| {
                let level = match finding.level {
                    Level::Fine => "ok",
                    Level::Note => "note",
                    Level::Problem => "problem",
                };
                json!({ "level": level, "check": finding.check, "text": finding.text, "fix": finding.fix })
            })
            .collect();
        json!({ "fine": self.is_fine(), "findings": findings })
    }

    fn add(&mut self, level: Level, check: &'static str, text: String, fix: Vec<String>) {
        self.findings.push(Finding {
            level,
            check,
            text,
            fix,
        });
    }
}
