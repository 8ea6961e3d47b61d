//! Which commands an identity may use on which names.
//!
//! One compiled model for the policy documents of every wire: for each command, patterns that
//! allow and patterns that deny. A pattern is a name, a beginning of names that ends in `*`, or
//! `*` alone. Deny is looked at first; what nothing allows is refused.

mod command;
mod paths;
mod patterns;

use std::collections::BTreeMap;

use moat_kms_client::wire::{Patterns, PolicyDocument};

pub use command::Command;
pub use paths::PathPolicy;

use crate::codec::{Malformed, Reader, Writer};
use patterns::PatternSet;

/// Why a policy document was refused. The message may be shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A path pattern that no operation answers to.
    #[error("policy path {0:?} is the path of no operation")]
    UnknownPath(String),
    /// A command that does not exist.
    #[error("policy names the unknown command {0:?}")]
    UnknownCommand(String),
    /// A pattern with a `*` that is not its last character, or of a wrong length.
    #[error(
        "policy pattern {0:?} must be a name, a beginning that ends in its only '*', or '*', and at most 256 bytes long"
    )]
    Pattern(String),
    /// Too many patterns.
    #[error("policy has more than {PATTERNS_MAX} patterns")]
    TooLarge,
}

/// More patterns than this in one policy are surely generated in error, and every call reads them.
pub const PATTERNS_MAX: usize = 1024;
const FORMAT: u8 = 1;

/// Why a policy decides as it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A pattern allows it and none denies it.
    Allowed,
    /// A pattern denies it.
    DeniedByRule,
    /// No pattern allows it.
    NotAllowed,
}

/// A policy, compiled.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    allow: BTreeMap<Command, PatternSet>,
    deny: BTreeMap<Command, PatternSet>,
}

impl Policy {
    /// Compiles a document.
    ///
    /// # Errors
    /// `PolicyError` names the command or pattern that is no good.
    pub fn compile(document: &PolicyDocument) -> Result<Self, PolicyError> {
        let mut room = PATTERNS_MAX;
        Ok(Self {
            allow: compile_rules(&document.allow, &mut room)?,
            deny: compile_rules(&document.deny, &mut room)?,
        })
    }

    /// What the policy says about `command` on the thing called `name`.
    pub fn decide(&self, command: Command, name: &str) -> Verdict {
        let matched = |rules: &BTreeMap<Command, PatternSet>| {
            rules.get(&command).is_some_and(|set| set.matches(name))
        };
        if matched(&self.deny) {
            Verdict::DeniedByRule
        } else if matched(&self.allow) {
            Verdict::Allowed
        } else {
            Verdict::NotAllowed
        }
    }

    /// As [`Policy::decide`], and the pattern that decides, if one does.
    pub fn explain(&self, command: Command, name: &str) -> (Verdict, Option<String>) {
        let matching = |rules: &BTreeMap<Command, PatternSet>| {
            rules.get(&command).and_then(|set| set.matching(name))
        };
        if let Some(pattern) = matching(&self.deny) {
            (Verdict::DeniedByRule, Some(pattern))
        } else if let Some(pattern) = matching(&self.allow) {
            (Verdict::Allowed, Some(pattern))
        } else {
            (Verdict::NotAllowed, None)
        }
    }

    /// Whether any name is allowed for `command`: enough to begin a listing, whose items are then
    /// decided one by one.
    pub fn allows_some(&self, command: Command) -> bool {
        self.allow.contains_key(&command)
    }

    /// The document that this policy was compiled from, in normal form.
    pub fn to_document(&self) -> PolicyDocument {
        let rules = |rules: &BTreeMap<Command, PatternSet>| {
            rules
                .iter()
                .map(|(command, set)| {
                    let patterns = Patterns::Many(set.to_patterns());
                    (command.as_str().to_owned(), patterns)
                })
                .collect()
        };
        PolicyDocument {
            allow: rules(&self.allow),
            deny: rules(&self.deny),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.u8(FORMAT);
        for rules in [&self.allow, &self.deny] {
            writer.u32(rules.len() as u32);
            for (command, set) in rules {
                let patterns = set.to_patterns();
                writer.u32(*command as u32).u32(patterns.len() as u32);
                for pattern in &patterns {
                    writer.text(pattern);
                }
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u8()? != FORMAT {
            return Err(Malformed);
        }
        let mut policy = Self::default();
        for rules in [&mut policy.allow, &mut policy.deny] {
            for _ in 0..reader.u32()? {
                let command = Command::from_code(reader.u32()?).ok_or(Malformed)?;
                let mut set = PatternSet::default();
                for _ in 0..reader.u32()? {
                    set.insert(reader.text()?).map_err(|_| Malformed)?;
                }
                set.normalise();
                rules.insert(command, set);
            }
        }
        Ok(policy)
    }
}

fn compile_rules(
    rules: &BTreeMap<String, Patterns>,
    room: &mut usize,
) -> Result<BTreeMap<Command, PatternSet>, PolicyError> {
    let mut compiled: BTreeMap<Command, PatternSet> = BTreeMap::new();
    for (text, patterns) in rules {
        let command =
            Command::parse(text).ok_or_else(|| PolicyError::UnknownCommand(text.clone()))?;
        for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
            *room = room.checked_sub(1).ok_or(PolicyError::TooLarge)?;
            compiled.entry(command).or_default().insert(pattern)?;
        }
    }
    compiled.values_mut().for_each(PatternSet::normalise);
    Ok(compiled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(json: &str) -> PolicyDocument {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn deny_wins_and_silence_refuses() {
        let policy = Policy::compile(&document(
            r#"{"allow":{"key:generate":"lake*","KEY:DECRYPT":{"*":{}}},"deny":{"KEY:GENERATE":["lake-secret"]}}"#,
        ))
        .unwrap();
        for (command, name, expected) in [
            (Command::KeyGenerate, "lake-1", Verdict::Allowed),
            (Command::KeyGenerate, "lake-secret", Verdict::DeniedByRule),
            (Command::KeyGenerate, "lak", Verdict::NotAllowed),
            (Command::KeyDecrypt, "anything", Verdict::Allowed),
            (Command::KeyCreate, "lake-1", Verdict::NotAllowed),
        ] {
            assert_eq!(policy.decide(command, name), expected, "{command} {name}");
        }
    }

    #[test]
    fn documents_with_odd_patterns_or_commands_are_refused() {
        for bad in ["a*b", "**", &"a".repeat(257)] {
            let document = document(&format!(r#"{{"allow":{{"KEY:CREATE":"{bad}"}}}}"#));
            assert!(
                matches!(Policy::compile(&document), Err(PolicyError::Pattern(_))),
                "{bad}"
            );
        }
        let unknown = document(r#"{"deny":{"KEY:CRAETE":"*"}}"#);
        assert!(matches!(
            Policy::compile(&unknown),
            Err(PolicyError::UnknownCommand(_))
        ));
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| n.to_string()).collect();
        let mut large = PolicyDocument::default();
        large.allow.insert("KEY:LIST".into(), Patterns::Many(many));
        assert_eq!(Policy::compile(&large), Err(PolicyError::TooLarge));
    }

    /// What the rules say, without sorting or looking up.
    fn naive(document: &PolicyDocument, command: Command, name: &str) -> Verdict {
        let matched = |rules: &BTreeMap<String, Patterns>| {
            rules
                .iter()
                .filter(|(text, _)| text.eq_ignore_ascii_case(command.as_str()))
                .flat_map(|(_, patterns)| patterns.iter())
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning),
                    None => !pattern.is_empty() && name == pattern,
                })
        };
        if matched(&document.deny) {
            Verdict::DeniedByRule
        } else if matched(&document.allow) {
            Verdict::Allowed
        } else {
            Verdict::NotAllowed
        }
    }

    fn rules() -> impl Strategy<Value = BTreeMap<String, Patterns>> {
        let pattern = "[ab-]{0,4}\\*?";
        let command = prop::sample::select(vec!["KEY:LIST", "key:list", "KEY:CREATE"]);
        let patterns = prop::collection::vec(pattern, 0..8).prop_map(Patterns::Many);
        prop::collection::btree_map(command.prop_map(str::to_owned), patterns, 0..3)
    }

    proptest! {
        #[test]
        fn compiled_policies_decide_as_the_rules_say(
            allow in rules(), deny in rules(), name in "[ab-]{0,5}",
        ) {
            let document = PolicyDocument { allow, deny };
            let policy = Policy::compile(&document).unwrap();
            let mut writer = Writer::new(1);
            policy.encode(&mut writer);
            let mut reader = Reader::new(writer.as_slice(), 1).unwrap();
            prop_assert_eq!(&Policy::decode(&mut reader).unwrap(), &policy);
            prop_assert_eq!(&Policy::compile(&policy.to_document()).unwrap(), &policy);
            for command in [Command::KeyList, Command::KeyCreate, Command::KeyStatus] {
                let verdict = naive(&document, command, &name);
                prop_assert_eq!(policy.decide(command, &name), verdict);
                let (explained, rule) = policy.explain(command, &name);
                prop_assert_eq!(explained, verdict);
                prop_assert_eq!(rule.is_some(), verdict != Verdict::NotAllowed);
            }
        }
    }
}
