//! Which commands an identity may use on which names.
//!
//! One compiled model for the policy documents of every wire: for each command, patterns that
//! allow and patterns that deny. A pattern is a name, a beginning of names that ends in `*`, or
//! `*` alone. Deny is looked at first; what nothing allows is refused.

use std::collections::BTreeMap;
use std::fmt;

use moat_kms_client::wire::{Patterns, PolicyDocument};

use crate::codec::{Malformed, Reader, Writer};

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An operation of the key manager, as policies and the audit name it. The codes are
        /// those of the MinKMS wire; ours begin at 1,000.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Command { $($(#[$doc])* $name = $code,)* }

        impl Command {
            /// Every command.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name, as in `KEY:CREATE`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

commands! {
    /// Make an enclave.
    EnclaveCreate = 101, "ENCLAVE:CREATE";
    /// Describe an enclave.
    EnclaveStatus = 103, "ENCLAVE:STATUS";
    /// List enclaves.
    EnclaveList = 104, "ENCLAVE:LIST";
    /// Make a key, or a new version of one.
    KeyCreate = 201, "KEY:CREATE";
    /// Describe a key.
    KeyStatus = 204, "KEY:STATUS";
    /// Encrypt under a key.
    KeyEncrypt = 205, "KEY:ENCRYPT";
    /// Decrypt under a key.
    KeyDecrypt = 206, "KEY:DECRYPT";
    /// Make a data key.
    KeyGenerate = 207, "KEY:GENERATE";
    /// List keys.
    KeyList = 208, "KEY:LIST";
    /// List the versions of a key.
    KeyListVersions = 209, "KEY:LISTVERSIONS";
    /// Write a policy.
    PolicyCreate = 301, "POLICY:CREATE";
    /// Give an identity a policy.
    PolicyAssign = 303, "POLICY:ASSIGN";
    /// Read a policy.
    PolicyGet = 304, "POLICY:GET";
    /// List policies.
    PolicyList = 306, "POLICY:LIST";
    /// Make an identity known.
    IdentityCreate = 401, "IDENTITY:CREATE";
    /// Describe an identity.
    IdentityStatus = 403, "IDENTITY:STATUS";
    /// List identities.
    IdentityList = 404, "IDENTITY:LIST";
    /// Let a disabled key be used again.
    KeyEnable = 1001, "KEY:ENABLE";
    /// Stop a key from being used.
    KeyDisable = 1002, "KEY:DISABLE";
    /// Make an epoch key and lease it.
    EpochGenerate = 1003, "EPOCH:GENERATE";
    /// Open a wrapped epoch key and lease it.
    EpochOpen = 1004, "EPOCH:OPEN";
    /// Read the audit.
    AuditRead = 1005, "AUDIT:READ";
    /// Read the metrics.
    MetricsRead = 1006, "METRICS:READ";
}

impl Command {
    /// Parses a name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|command| command.as_str().eq_ignore_ascii_case(text))
    }

    fn from_code(code: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|command| *command as u32 == code)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a policy document was refused. The message may be shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
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

/// The longest pattern: names are at most 128 bytes, identities 46; the rest is room.
const PATTERN_BYTES_MAX: usize = 256;
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

/// Patterns of one command: sorted, so that a name is looked up, not compared with each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct PatternSet {
    names: Vec<Box<str>>,
    /// Beginnings, without their `*`; the empty one matches everything. None begins with another.
    beginnings: Vec<Box<str>>,
}

impl PatternSet {
    fn insert(&mut self, pattern: &str) -> Result<(), PolicyError> {
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

    fn normalise(&mut self) {
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

    fn matches(&self, name: &str) -> bool {
        if self.names.binary_search_by(|n| (**n).cmp(name)).is_ok() {
            return true;
        }
        // Only the greatest beginning that is not above the name can be one of it, because no
        // beginning of the set begins with another.
        let above = self.beginnings.partition_point(|b| &**b <= name);
        above > 0 && name.starts_with(&*self.beginnings[above - 1])
    }

    fn to_patterns(&self) -> Vec<String> {
        let beginnings = self.beginnings.iter().map(|b| format!("{b}*"));
        let names = self.names.iter().map(|n| n.to_string());
        beginnings.chain(names).collect()
    }
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
                prop_assert_eq!(policy.decide(command, &name), naive(&document, command, &name));
            }
        }
    }
}
