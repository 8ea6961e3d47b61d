//! The patterns of one rule.

use super::PolicyError;

/// The longest pattern: names are at most 128 bytes, identities 46; the rest is room.
const PATTERN_BYTES_MAX: usize = 256;

/// Patterns of one command: sorted, so that a name is looked up, not compared with each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct PatternSet {
    names: Vec<Box<str>>,
    /// Beginnings, without their `*`; the empty one matches everything. None begins with another.
    beginnings: Vec<Box<str>>,
}

impl PatternSet {
    pub(super) fn insert(&mut self, pattern: &str) -> Result<(), PolicyError> {
        let beginning = pattern.strip_suffix('*');
        let literal = beginning.unwrap_or(pattern);
        if pattern.is_empty() || pattern.len() > PATTERN_BYTES_MAX || literal.contains('*') {
            let shown = pattern.chars().take(PATTERN_BYTES_MAX).collect();
            return Err(PolicyError::Pattern(shown));
        }
        match beginning {
            Some(beginning) => self.beginnings.push(beginning.into()),
            None => self.names.push(pattern.into()),
        }
        Ok(())
    }

    pub(super) fn normalise(&mut self) {
        self.beginnings.sort();
        // In sorted order a beginning follows every beginning of itself at once, or after others
        // that share it; so comparing with the last one kept is enough.
        let mut kept: Vec<Box<str>> = Vec::with_capacity(self.beginnings.len());
        for beginning in self.beginnings.drain(..) {
            if !kept
                .last()
                .is_some_and(|last| beginning.starts_with(&**last))
            {
                kept.push(beginning);
            }
        }
        self.beginnings = kept;
        self.names.sort();
        self.names.dedup();
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| (**n).cmp(name)).is_ok() || self.beginning(name).is_some()
    }

    /// The pattern that matches, in the form of documents.
    pub(super) fn matching(&self, name: &str) -> Option<String> {
        if self.names.binary_search_by(|n| (**n).cmp(name)).is_ok() {
            return Some(name.to_owned());
        }
        self.beginning(name)
            .map(|beginning| format!("{beginning}*"))
    }

    fn beginning(&self, name: &str) -> Option<&str> {
        // Only the greatest beginning that is not above the name can be one of it, because no
        // beginning of the set begins with another.
        let above = self.beginnings.partition_point(|b| &**b <= name);
        let beginning = &**self.beginnings.get(above.checked_sub(1)?)?;
        name.starts_with(beginning).then_some(beginning)
    }

    pub(super) fn to_patterns(&self) -> Vec<String> {
        let beginnings = self.beginnings.iter().map(|b| format!("{b}*"));
        let names = self.names.iter().map(|n| n.to_string());
        beginnings.chain(names).collect()
    }
}
