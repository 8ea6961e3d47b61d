//! A line on its way to the writer: all of its text but its number and its links.
//!
//! The writer is one thread, so whoever makes a line also writes its text, and the writer adds what
//! only it knows. The text is the one that serde makes of an [`AuditLine`]; for operations, of which
//! there are thousands a second, it is written by hand, without the line in between.

use std::io::Write as _;

use super::Facts;
use super::line::AuditLine;

/// How a line without number, links and hash begins and ends.
const BEGIN: &[u8] = br#"{"seq":0,"#;
const END: &[u8] = br#""prev":""}"#;

/// The members of a line between its number and its links, each with a comma behind it.
pub(crate) struct Entry(Vec<u8>);

impl Entry {
    /// Whatever links and number `line` has are left out.
    pub(crate) fn of_line(line: &AuditLine) -> Self {
        let bare = AuditLine {
            seq: 0,
            prev: String::new(),
            hash: None,
            ..line.clone()
        };
        let text = serde_json::to_vec(&bare).expect("a line of texts and numbers is JSON");
        let members = text.strip_prefix(BEGIN).and_then(|t| t.strip_suffix(END));
        Self(
            members
                .expect("the number comes first, the links last")
                .to_vec(),
        )
    }

    /// The line of an operation.
    pub(crate) fn of_facts(facts: &Facts) -> Self {
        /// What most have; longer ones grow.
        const BYTES: usize = 512;
        let mut out = Members(Vec::with_capacity(BYTES));
        out.shown("time", facts.time.to_timestamp());
        out.word("kind", "operation");
        out.text("request_id", &facts.request_id);
        if let Some(identity) = &facts.identity {
            out.shown("identity", identity);
        }
        out.text("source", &facts.source);
        if !facts.enclave.is_empty() {
            out.text("enclave", &facts.enclave);
        }
        out.word("operation", facts.operation);
        out.optional("key", facts.key.as_deref());
        if let Some(version) = facts.version {
            out.number("version", version.into());
        }
        if let Some(context) = &facts.context {
            out.name("context");
            out.0.push(b'"');
            push_hex(&mut out.0, context);
            out.0.extend_from_slice(b"\",");
        }
        out.optional("bucket", facts.bucket.as_deref());
        out.optional("epoch", facts.epoch.as_deref());
        out.optional("subject", facts.subject.as_deref());
        out.word("outcome", facts.outcome.as_str());
        out.optional("reason", facts.reason.as_deref());
        out.number("micros", facts.micros);
        Self(out.0)
    }

    pub(crate) fn members(&self) -> &[u8] {
        &self.0
    }
}

struct Members(Vec<u8>);

impl Members {
    fn name(&mut self, name: &str) {
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A text that needs no escapes.
    fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\",");
    }

    fn text(&mut self, name: &str, value: &str) {
        let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        if value.bytes().all(plain) {
            return self.word(name, value);
        }
        self.name(name);
        serde_json::to_writer(&mut self.0, value).expect("a text is JSON");
        self.0.push(b',');
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A value whose text needs no escapes.
    fn shown(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        write!(self.0, "\"{value}\",").expect("a vector takes everything");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        write!(self.0, "{value},").expect("a vector takes everything");
    }
}

/// The two hex digits of each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// Appends lower-case hex digits.
pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.extend_from_slice(&HEX[usize::from(*byte)]);
    }
}

#[cfg(test)]
mod tests {
    use moat_kms_client::Identity;
    use moat_types::UnixMillis;
    use proptest::prelude::*;

    use super::*;
    use crate::audit::Outcome;
    use crate::audit::line::LineKind;

    /// The line that says the same, which serde writes.
    fn line_of(facts: &Facts) -> AuditLine {
        let mut line = AuditLine::empty(LineKind::Operation);
        line.time = facts.time.to_timestamp().to_string();
        line.request_id = Some(facts.request_id.clone());
        line.identity = facts.identity.map(|identity| identity.to_string());
        line.source = Some(facts.source.to_string());
        line.enclave = Some(facts.enclave.clone()).filter(|enclave| !enclave.is_empty());
        line.operation = Some(facts.operation.to_owned());
        line.key.clone_from(&facts.key);
        line.version = facts.version;
        line.context = facts.context.map(hex::encode);
        line.bucket.clone_from(&facts.bucket);
        line.epoch.clone_from(&facts.epoch);
        line.subject.clone_from(&facts.subject);
        line.outcome = Some(facts.outcome);
        line.reason.clone_from(&facts.reason);
        line.micros = Some(facts.micros);
        line
    }

    proptest! {
        #[test]
        fn operations_are_written_as_serde_writes_their_lines(
            texts in prop::array::uniform3(any::<String>()),
            some in prop::array::uniform6(prop::option::of("[a-z\"\\\\\u{0}-\u{20}é]{0,8}")),
            identity: Option<[u8; 32]>, context: Option<[u8; 32]>, version: Option<u32>,
            millis in 0..4_000_000_000_000_i64, micros: u64, outcome in 0..4_usize,
        ) {
            let [request_id, source, enclave] = texts;
            let [key, bucket, epoch, subject, reason, _] = some;
            let outcomes = [Outcome::Begun, Outcome::Allowed, Outcome::Denied, Outcome::Error];
            let facts = Facts {
                time: UnixMillis(millis),
                request_id,
                identity: identity.map(Identity::from_spki_sha256),
                source: source.into(),
                enclave,
                operation: "KEY:GENERATE",
                key,
                version,
                context,
                bucket,
                epoch,
                subject,
                outcome: outcomes[outcome],
                reason,
                fault: None,
                micros,
            };
            let (by_hand, by_serde) = (Entry::of_facts(&facts), Entry::of_line(&line_of(&facts)));
            prop_assert_eq!(
                String::from_utf8(by_hand.0).unwrap(),
                String::from_utf8(by_serde.0).unwrap()
            );
        }
    }
}
