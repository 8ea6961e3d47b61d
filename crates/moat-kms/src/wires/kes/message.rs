//! Bodies of requests and answers, and the texts of names and identities.
//!
//! Unknown members are let pass: newer clients send a `version` that means nothing here.

use std::collections::BTreeMap;

use moat_kms_client::Identity;
use moat_kms_client::wire::{Base64, SecretBase64};
use moat_types::KeyName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answer::{Refusal, text};
use crate::json::from_json;
use crate::rows::Origin;

#[derive(Deserialize)]
pub(super) struct Import {
    pub(super) key: SecretBase64,
    #[serde(default)]
    pub(super) cipher: String,
}

#[derive(Default, Deserialize)]
pub(super) struct Generate {
    #[serde(default)]
    pub(super) context: Option<Base64>,
}

#[derive(Deserialize)]
pub(super) struct Encrypt {
    pub(super) plaintext: SecretBase64,
    #[serde(default)]
    pub(super) context: Option<Base64>,
}

#[derive(Deserialize)]
pub(super) struct Decrypt {
    pub(super) ciphertext: Base64,
    #[serde(default)]
    pub(super) context: Option<Base64>,
}

#[derive(Deserialize)]
pub(super) struct Hmac {
    pub(super) message: Base64,
}

#[derive(Serialize)]
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    pub(super) algorithm: &'a str,
    pub(super) created_at: String,
    pub(super) created_by: String,
}

#[derive(Serialize)]
pub(super) struct Names {
    pub(super) names: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) continue_at: String,
}

#[derive(Serialize)]
pub(super) struct Identities {
    pub(super) identities: Vec<String>,
    pub(super) continue_at: String,
}

/// A set of patterns, as Go writes one.
pub(super) type Patterns = BTreeMap<String, Nothing>;

#[derive(Serialize)]
pub(super) struct Nothing {}

#[derive(Serialize)]
pub(super) struct Policy {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allow: Option<Patterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deny: Option<Patterns>,
    pub(super) created_at: String,
    pub(super) created_by: String,
}

#[derive(Serialize)]
pub(super) struct IdentityInfo {
    /// Left out where the caller named it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) admin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<PolicyOfIdentity>,
    pub(super) created_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) created_by: String,
}

/// A name where an identity is described, the whole policy where it describes itself.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum PolicyOfIdentity {
    Name(String),
    Whole(Policy),
}

/// Seconds, bytes and milliseconds.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    pub(super) version: &'a str,
    pub(super) os: &'static str,
    pub(super) arch: &'static str,
    pub(super) uptime: u64,
    pub(super) num_cpu: usize,
    pub(super) num_cpu_used: usize,
    pub(super) mem_heap_used: u64,
    pub(super) mem_stack_used: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keystore_latency: Option<u64>,
    /// Clients take a status as good only if both of these are there or none is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) keystore_unreachable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) keystore_unavailable: bool,
}

/// Decodes a body. Says nothing of what is wrong with it, as it may hold a secret.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let refused = || Refusal::bad_request(text::INVALID_BODY);
    // serde would take an array of the members as well.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(refused());
    }
    from_json(body).map_err(|_| refused())
}

/// The longest name that KES makes.
const NAME_BYTES_MAX: usize = 80;

/// Checks the name of a thing that is there. Names that other wires made are taken as well.
pub(super) fn parse_name(name: &str) -> Result<KeyName, Refusal> {
    KeyName::parse(name).map_err(|e| Refusal::bad_request(e.to_string()))
}

/// Checks the name of a thing that is to be made, by KES's own rules.
pub(super) fn parse_new_name(name: &str) -> Result<KeyName, Refusal> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let problem = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        format!("a name must have 1 to {NAME_BYTES_MAX} characters")
    } else if !name.bytes().all(known) {
        "a name may only hold letters, digits, '-' and '_'".to_owned()
    } else if name.ends_with('-') {
        "a name must not end with '-'".to_owned()
    } else {
        return parse_name(name);
    };
    Err(Refusal::bad_request(problem))
}

/// Reads an identity: KES's form, or that of the other wires.
pub(super) fn parse_identity(text: &str) -> Result<Identity, Refusal> {
    Identity::parse(text).ok_or_else(|| Refusal::bad_request("an identity is 64 hex digits"))
}

pub(super) fn created_at(origin: &Origin) -> String {
    origin.at.to_timestamp().to_string()
}

pub(super) fn created_by(origin: &Origin) -> String {
    origin
        .by
        .as_ref()
        .map(Identity::to_kes_text)
        .unwrap_or_default()
}

/// What a listing begins with: the names' prefix, and the first name of the page.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct ListFrom {
    pub(super) prefix: String,
    pub(super) from: String,
}

/// No name holds it, and clients escape it in paths.
const CONTINUATION: char = '|';

impl ListFrom {
    /// Reads the argument of a listing: nothing or `*` for all, a prefix, with or without a `*`
    /// behind it, or what an earlier page gave to go on.
    ///
    /// Clients put `continue_at` where the prefix stood, so it has to carry the prefix along.
    pub(super) fn parse(argument: &str) -> Result<Self, Refusal> {
        let (prefix, from) = argument.split_once(CONTINUATION).unwrap_or((argument, ""));
        let prefix = prefix.strip_suffix('*').unwrap_or(prefix);
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        if prefix.bytes().all(known) && from.bytes().all(known) {
            return Ok(Self {
                prefix: prefix.to_owned(),
                from: from.to_owned(),
            });
        }
        let shown: String = argument.chars().take(NAME_BYTES_MAX).collect();
        let message = format!("listing pattern '{shown}' is empty, too long or is invalid");
        Err(Refusal::bad_request(message))
    }

    /// What a client sends to go on with the name `next`.
    pub(super) fn continue_at(&self, next: Option<String>) -> String {
        next.map(|next| format!("{}{CONTINUATION}{next}", self.prefix))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_carries_its_prefix() {
        let check = |argument: &str, prefix: &str, from: &str| {
            let expected = ListFrom {
                prefix: prefix.into(),
                from: from.into(),
            };
            assert_eq!(ListFrom::parse(argument).unwrap(), expected, "{argument}");
        };
        check("", "", "");
        check("*", "", "");
        check("lake", "lake", "");
        check("lake-*", "lake-", "");
        check("lake-", "lake-", "");
        let first = ListFrom::parse("lake*").unwrap();
        check(&first.continue_at(Some("lake-7".into())), "lake", "lake-7");
        assert_eq!(first.continue_at(None), "");
        for bad in ["a*b", "a/b", "**", "ä", "a|b|c"] {
            assert_eq!(ListFrom::parse(bad).unwrap_err().parts().0, 400, "{bad}");
        }
    }

    #[test]
    fn new_names_follow_the_rules_of_kes() {
        for good in ["a", "A-1_b", &"x".repeat(80)] {
            assert!(parse_new_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a-", "-a", "_", "a/b", "ä", &"x".repeat(81)] {
            assert_eq!(parse_new_name(bad).unwrap_err().parts().0, 400, "{bad}");
        }
        assert!(parse_name("made.elsewhere").is_ok());
    }

    #[test]
    fn identities_are_read_in_both_forms() {
        let identity = Identity::from_spki_sha256([0xa0; 32]);
        for text in [
            identity.to_kes_text(),
            identity.to_string(),
            "A0".repeat(32),
        ] {
            assert_eq!(parse_identity(&text).unwrap(), identity, "{text}");
        }
        for bad in ["", "a0", "h1:", &"g".repeat(64)] {
            assert!(parse_identity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bodies_may_hold_what_is_not_known_but_not_lack_what_is_needed() {
        let generate: Generate = parse(br#"{"context":"e30=","version":"v2"}"#).unwrap();
        assert_eq!(generate.context.unwrap().0, b"{}");
        assert!(
            parse::<Generate>(br#"{"context":null}"#)
                .unwrap()
                .context
                .is_none()
        );
        for bad in [
            "",
            "[]",
            "{",
            r#"{"ciphertext":1}"#,
            r#"{"ciphertext":"%"}"#,
            "{}",
        ] {
            let refused = parse::<Decrypt>(bad.as_bytes()).err().unwrap();
            assert_eq!(refused.parts(), (400, text::INVALID_BODY), "{bad}");
        }
    }
}
