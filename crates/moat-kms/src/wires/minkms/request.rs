//! The messages of requests: field numbers as the protocol has them.
//!
//! What an absent field means is its default. That GENERATE has the associated data in field 3
//! while ENCRYPT and DECRYPT have it in field 4 is so in the original.

use super::proto::{Field, Malformed, Sint32, Value, fields};

/// A message that is read field by field.
pub(super) trait Message<'a>: Default {
    /// Reads a message.
    fn parse(message: &'a [u8]) -> Result<Self, Malformed>;
}

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($number:literal => $field:ident: $kind:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Default, PartialEq, Eq)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: $kind,)*
            _message: std::marker::PhantomData<&'a [u8]>,
        }

        impl<'a> Message<'a> for $name<'a> {
            fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
                let mut parsed = Self::default();
                fields(message, |number, value| match number {
                    $($number => parsed.$field.merge(value),)*
                    _ => Ok(()),
                })?;
                Ok(parsed)
            }
        }
    )* };
}

messages! {
    /// 101 to 103, 302, 304, 305: what is named.
    Named {
        1 => name: &'a str,
    }
    /// 104, 208, 306, 404: a page of a listing.
    List {
        1 => prefix: &'a str,
        2 => continue_at: &'a str,
        3 => limit: u32,
    }
    /// 201: a new key, or a new version of one.
    CreateKey {
        1 => name: &'a str,
        2 => kind: &'a str,
        3 => add_version: bool,
    }
    /// 202: a version of a key (0: the latest), or all of it.
    DeleteKey {
        1 => name: &'a str,
        2 => version: u32,
        3 => all_versions: bool,
    }
    /// 203: a key whose material comes from elsewhere.
    ImportKey {
        1 => name: &'a str,
        2 => kind: &'a str,
        3 => material: &'a [u8],
    }
    /// 204: a version of a key; 0 is the latest.
    KeyStatus {
        1 => name: &'a str,
        2 => version: u32,
    }
    /// 205: a secret to encrypt.
    Encrypt {
        1 => name: &'a str,
        2 => version: u32,
        3 => plaintext: &'a [u8],
        4 => context: &'a [u8],
    }
    /// 206: what ENCRYPT or GENERATE gave. Version 0 is the one that the ciphertext names.
    Decrypt {
        1 => name: &'a str,
        2 => version: u32,
        3 => ciphertext: &'a [u8],
        4 => context: &'a [u8],
    }
    /// 207: a new data key; length 0 is 32.
    Generate {
        1 => name: &'a str,
        2 => version: u32,
        3 => context: &'a [u8],
        4 => length: u32,
    }
    /// 210: a message to authenticate.
    Mac {
        1 => name: &'a str,
        2 => version: u32,
        3 => message: &'a [u8],
    }
    /// 301: a policy; rules by the text of the command.
    CreatePolicy {
        1 => name: &'a str,
        2 => allow: Vec<(&'a str, RuleSet<'a>)>,
        3 => deny: Vec<(&'a str, RuleSet<'a>)>,
    }
    /// 303: which policy an identity gets.
    AssignPolicy {
        1 => identity: &'a str,
        2 => policy: &'a str,
    }
    /// 401: an identity to be known.
    CreateIdentity {
        1 => identity: &'a str,
        2 => privilege: &'a str,
        3 => service_account: bool,
        4 => tags: Vec<(&'a str, &'a str)>,
    }
    /// 402, 403: an identity.
    Identified {
        1 => identity: &'a str,
    }
    /// What a log stream is to hold. Fields from 4 on are of other kinds in other clients.
    Logs {
        1 => level: Sint32,
        2 => message: &'a str,
    }
    /// Patterns of one command. Their values are messages without fields.
    RuleSet {
        1 => patterns: Vec<(&'a str, &'a [u8])>,
    }
}

/// One that stands there twice is read as if it were written in one.
impl<'a> Field<'a> for RuleSet<'a> {
    fn merge(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(message) = value else {
            return Err(Malformed);
        };
        self.patterns.extend(Self::parse(message)?.patterns);
        Ok(())
    }
}

/// Reads a message as each kind; see `crate::fuzzing`.
pub(super) fn fuzz(message: &[u8]) {
    macro_rules! each {
        ($($kind:ident)*) => { $( let _ = $kind::parse(message); )* };
    }
    each!(Named List CreateKey DeleteKey ImportKey KeyStatus Encrypt Decrypt Generate Mac);
    each!(CreatePolicy AssignPolicy CreateIdentity Identified Logs RuleSet);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex.replace(' ', "")).unwrap()
    }

    #[test]
    fn the_published_examples_are_read() {
        let message = bytes("0a066d792d6b6579 1a027b7d 2020");
        let generate = Generate::parse(&message).unwrap();
        assert_eq!((generate.name, generate.context), ("my-key", &b"{}"[..]));
        assert_eq!((generate.version, generate.length), (0, 32));

        let message = bytes("0a066d792d6b6579");
        let create = CreateKey::parse(&message).unwrap();
        assert_eq!((create.name, create.kind), ("my-key", ""));
        assert!(!create.add_version);

        assert!(List::parse(b"").unwrap() == List::default());
    }

    #[test]
    fn rules_are_maps_of_maps() {
        // name p; allow { KEY:LIST: { "a*": {} , "b": {} } }; deny { KEY:MAC: {} }
        let message = bytes(
            "0a0170 1218 0a084b45593a4c495354 120c 0a060a02612a1200 0a020a00 \
             1a0b 0a074b45593a4d4143 1200",
        );
        // The second pattern is empty, and its value absent.
        let policy = CreatePolicy::parse(&message).unwrap();
        assert_eq!(policy.name, "p");
        assert_eq!(policy.allow.len(), 1);
        assert_eq!(policy.allow[0].0, "KEY:LIST");
        let patterns: Vec<_> = policy.allow[0].1.patterns.iter().map(|(p, _)| *p).collect();
        assert_eq!(patterns, ["a*", ""]);
        assert_eq!(policy.deny[0].0, "KEY:MAC");
        assert!(policy.deny[0].1.patterns.is_empty());
    }

    #[test]
    fn unknown_fields_are_skipped_and_others_must_fit() {
        assert_eq!(
            Named::parse(&bytes("0a0161 9a0600 1801")).unwrap().name,
            "a"
        );
        assert!(Named::parse(&bytes("0801")).is_err());
        assert!(Named::parse(&bytes("0a01ff")).is_err());
        assert!(KeyStatus::parse(&bytes("0a0161 10ffffffff1f")).is_err());
    }
}
