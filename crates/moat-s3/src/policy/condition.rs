//! The conditions of a statement: operators over a few facts of a request.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::pattern::Pattern;
use super::{OneOrMany, PolicyError};

/// What conditions can ask about. What a request does not say is absent.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `aws:username`.
    pub user: Option<&'a str>,
    /// `aws:SourceIp`.
    pub source: Option<IpAddr>,
    /// `aws:SecureTransport`.
    pub secure: bool,
    /// `s3:prefix`, of a list.
    pub prefix: Option<&'a str>,
    /// `s3:delimiter`, of a list.
    pub delimiter: Option<&'a str>,
    /// `s3:x-amz-server-side-encryption`.
    pub encryption: Option<&'a str>,
    /// `s3:x-amz-server-side-encryption-aws-kms-key-id`.
    pub kms_key_id: Option<&'a str>,
}

/// Operator, then key, then the values of which one must fit.
pub(super) type Written = BTreeMap<String, BTreeMap<String, OneOrMany<Value>>>;

/// AWS lets switches be written with and without quotes.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Text(String),
    Switch(bool),
}

/// All of them must hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    key: Key,
    test: Test,
    /// `StringNotEquals` and its kind, which hold for what is absent, too.
    negated: bool,
    /// `...IfExists`.
    if_exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    User,
    Source,
    Secure,
    Prefix,
    Delimiter,
    Encryption,
    KmsKeyId,
}

#[derive(Clone, Debug)]
enum Test {
    Equals {
        values: Vec<String>,
        any_case: bool,
    },
    Like(Vec<Pattern>),
    Bool(bool),
    Within(Vec<(IpAddr, u32)>),
    /// Whether it must be absent.
    Absent(bool),
}

impl Conditions {
    pub(super) fn new(written: Written) -> Result<Self, PolicyError> {
        let mut conditions = Vec::new();
        for (operator, keys) in written {
            for (name, values) in keys {
                conditions.push(Condition::new(&operator, &name, values.into_vec())?);
            }
        }
        Ok(Self(conditions))
    }

    pub(super) fn hold(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|condition| condition.holds(facts))
    }
}

impl Condition {
    fn new(operator: &str, name: &str, values: Vec<Value>) -> Result<Self, PolicyError> {
        let unsupported = |what: String| Err(PolicyError::Unsupported(what));
        let Some(key) = Key::parse(name) else {
            return unsupported(format!("conditions on {name} are not supported"));
        };
        let texts: Vec<String> = values.into_iter().map(Value::into_text).collect();
        let (plain, if_exists) = match operator.strip_suffix("IfExists") {
            Some(plain) => (plain, true),
            None => (operator, false),
        };
        let any_case = plain.ends_with("IgnoreCase");
        let (test, negated) = match plain {
            "StringEquals"
            | "StringEqualsIgnoreCase"
            | "StringNotEquals"
            | "StringNotEqualsIgnoreCase" => (
                Test::Equals {
                    values: texts,
                    any_case,
                },
                plain.starts_with("StringNot"),
            ),
            "StringLike" | "StringNotLike" => (
                Test::Like(texts.iter().map(|text| Pattern::new(text)).collect()),
                plain == "StringNotLike",
            ),
            "Bool" => (Test::Bool(switch(&texts)?), false),
            "Null" => (Test::Absent(switch(&texts)?), false),
            "IpAddress" | "NotIpAddress" => (
                Test::Within(
                    texts
                        .iter()
                        .map(|text| network(text))
                        .collect::<Result<_, _>>()?,
                ),
                plain == "NotIpAddress",
            ),
            _ => return unsupported(format!("the condition {operator} is not supported")),
        };
        let fits = match test {
            Test::Bool(_) => key == Key::Secure,
            Test::Within(_) => key == Key::Source,
            Test::Equals { .. } | Test::Like(_) => !matches!(key, Key::Secure | Key::Source),
            Test::Absent(_) => true,
        };
        if !fits {
            return unsupported(format!("the condition {operator} does not fit {name}"));
        }
        Ok(Self {
            key,
            test,
            negated,
            if_exists,
        })
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        let text = self.key.text_in(facts);
        let present = match self.key {
            Key::Source => facts.source.is_some(),
            Key::Secure => true,
            _ => text.is_some(),
        };
        if let Test::Absent(absent) = self.test {
            return present != absent;
        }
        if !present {
            return self.if_exists || self.negated;
        }
        let matches = match (&self.test, text) {
            (Test::Equals { values, any_case }, Some(text)) => values
                .iter()
                .any(|value| value == text || (*any_case && value.eq_ignore_ascii_case(text))),
            (Test::Like(patterns), Some(text)) => {
                patterns.iter().any(|pattern| pattern.matches(text))
            }
            (Test::Bool(wanted), _) => facts.secure == *wanted,
            (Test::Within(networks), _) => facts
                .source
                .is_some_and(|address| networks.iter().any(|network| contains(*network, address))),
            _ => false,
        };
        matches != self.negated
    }
}

impl Key {
    fn parse(name: &str) -> Option<Self> {
        const NAMES: [(&str, Key); 7] = [
            ("aws:username", Key::User),
            ("aws:SourceIp", Key::Source),
            ("aws:SecureTransport", Key::Secure),
            ("s3:prefix", Key::Prefix),
            ("s3:delimiter", Key::Delimiter),
            ("s3:x-amz-server-side-encryption", Key::Encryption),
            (
                "s3:x-amz-server-side-encryption-aws-kms-key-id",
                Key::KmsKeyId,
            ),
        ];
        let (_, key) = NAMES
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(key)
    }

    const fn text_in<'a>(self, facts: &Facts<'a>) -> Option<&'a str> {
        match self {
            Self::User => facts.user,
            Self::Prefix => facts.prefix,
            Self::Delimiter => facts.delimiter,
            Self::Encryption => facts.encryption,
            Self::KmsKeyId => facts.kms_key_id,
            Self::Source | Self::Secure => None,
        }
    }
}

impl Value {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Switch(on) => on.to_string(),
        }
    }
}

fn switch(texts: &[String]) -> Result<bool, PolicyError> {
    match texts {
        [one] if one.eq_ignore_ascii_case("true") => Ok(true),
        [one] if one.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(PolicyError::Malformed(
            "Bool and Null take \"true\" or \"false\"".to_owned(),
        )),
    }
}

/// An address, or one with the number of bits that count.
fn network(text: &str) -> Result<(IpAddr, u32), PolicyError> {
    let parsed = || {
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
        (bits <= all).then_some((address, bits))
    };
    parsed().ok_or_else(|| {
        PolicyError::Malformed(format!("{text:?} is no network, such as 10.0.0.0/8"))
    })
}

fn contains((network, bits): (IpAddr, u32), address: IpAddr) -> bool {
    let value = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    network.is_ipv4() == address.is_ipv4()
        && (bits == 0 || (value(network) ^ value(address)) >> (128 - bits) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(json: &str, facts: &Facts<'_>) -> bool {
        let written: Written = serde_json::from_str(json).unwrap();
        Conditions::new(written).unwrap().hold(facts)
    }

    #[test]
    fn texts_are_compared_and_matched() {
        let facts = Facts {
            prefix: Some("home/ann/"),
            encryption: Some("aws:kms"),
            ..Facts::default()
        };
        for (json, expected) in [
            (
                r#"{"StringLike": {"s3:prefix": ["home/bob/*", "home/ann/*"]}}"#,
                true,
            ),
            (r#"{"StringLike": {"s3:prefix": "home/bob/*"}}"#, false),
            (
                r#"{"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}}"#,
                false,
            ),
            (
                r#"{"StringEqualsIgnoreCase": {"s3:x-amz-server-side-encryption": "AWS:KMS"}}"#,
                true,
            ),
            (r#"{"StringEquals": {"s3:delimiter": "/"}}"#, false),
            (r#"{"StringEqualsIfExists": {"s3:delimiter": "/"}}"#, true),
            (r#"{"StringNotEquals": {"s3:delimiter": "/"}}"#, true),
            (
                r#"{"Null": {"s3:delimiter": "true", "s3:prefix": false}}"#,
                true,
            ),
            (r#"{"Null": {"s3:prefix": "true"}}"#, false),
        ] {
            assert_eq!(holds(json, &facts), expected, "{json}");
        }
    }

    #[test]
    fn addresses_and_transport() {
        let facts = Facts {
            source: Some("10.1.2.3".parse().unwrap()),
            secure: true,
            ..Facts::default()
        };
        for (json, expected) in [
            (
                r#"{"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "10.0.0.0/8"]}}"#,
                true,
            ),
            (r#"{"IpAddress": {"aws:SourceIp": "10.1.2.4"}}"#, false),
            (r#"{"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}"#, true),
            (r#"{"IpAddress": {"aws:SourceIp": "::/0"}}"#, false),
            (r#"{"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#, false),
            (r#"{"Bool": {"aws:SecureTransport": "true"}}"#, true),
            (r#"{"Bool": {"aws:SecureTransport": false}}"#, false),
        ] {
            assert_eq!(holds(json, &facts), expected, "{json}");
        }
    }

    #[test]
    fn operators_must_fit_their_keys() {
        for json in [
            r#"{"Bool": {"s3:prefix": "true"}}"#,
            r#"{"StringEquals": {"aws:SourceIp": "10.0.0.1"}}"#,
            r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}"#,
            r#"{"Bool": {"aws:SecureTransport": "yes"}}"#,
        ] {
            let written: Written = serde_json::from_str(json).unwrap();
            assert!(Conditions::new(written).is_err(), "{json}");
        }
    }
}
