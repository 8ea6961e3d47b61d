//! Lines on their way to the writer: all of their text but their numbers and links.
//!
//! The writer is one thread, so whoever makes a line also writes its text, and the writer adds what
//! only it knows. The text is the one that serde makes of an [`AuditLine`]; for operations, of which
//! there are thousands a second, it is written by hand into one buffer, without formatting and
//! without the line in between. That took 4,900 instructions a line with `write!`, and takes 2,200,
//! or 1,200 in a batch.

use std::sync::Arc;

use moat_types::UnixMillis;

use super::line::AuditLine;
use super::{Asked, Facts};

/// How a line without number, links and hash begins and ends.
const BEGIN: &[u8] = br#"{"seq":0,"#;
const END: &[u8] = br#""prev":""}"#;
/// What most lines have; longer ones grow.
const LINE_BYTES: usize = 448;
/// The length that stands before each entry.
const LENGTH_BYTES: usize = 4;

/// Lines, one behind the other: of each the members between its number and its links, each with a
/// comma behind it, in one buffer with their lengths before them.
#[derive(Default)]
pub(crate) struct Entries {
    text: Vec<u8>,
    count: usize,
}

impl Entries {
    /// One line. Whatever links and number `line` has are left out.
    pub(crate) fn of_line(line: &AuditLine) -> Self {
        let bare = AuditLine {
            seq: 0,
            prev: String::new(),
            hash: None,
            ..line.clone()
        };
        let text = serde_json::to_vec(&bare).expect("a line of texts and numbers is JSON");
        let members = text.strip_prefix(BEGIN).and_then(|t| t.strip_suffix(END));
        let members = members.expect("the number comes first, the links last");
        let mut entries = Self::default();
        entries.push(|out| out.0.extend_from_slice(members));
        entries
    }

    /// The lines of operations. What those of a batch share is written for the first one and copied
    /// for the others.
    pub(crate) fn of_facts(facts: &[Facts]) -> Self {
        let mut entries = Self {
            text: Vec::with_capacity(facts.len() * LINE_BYTES),
            count: 0,
        };
        let mut last: Option<(&Arc<Asked>, std::ops::Range<usize>)> = None;
        for one in facts {
            entries.push(|out| {
                match &last {
                    Some((asked, text)) if Arc::ptr_eq(asked, &one.asked) => {
                        out.0.extend_from_within(text.clone());
                    }
                    _ => {
                        let start = out.0.len();
                        out.asked(&one.asked);
                        last = Some((&one.asked, start..out.0.len()));
                    }
                }
                out.ended(one);
            });
        }
        entries
    }

    fn push(&mut self, write: impl FnOnce(&mut Members<'_>)) {
        let start = self.text.len();
        self.text.extend_from_slice(&[0; LENGTH_BYTES]);
        write(&mut Members(&mut self.text));
        let length = self.text.len() - start - LENGTH_BYTES;
        let length = u32::try_from(length).expect("lines are far below 4 GiB");
        self.text[start..start + LENGTH_BYTES].copy_from_slice(&length.to_ne_bytes());
        self.count += 1;
    }

    /// How many lines they are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// How many bytes they take, roughly.
    pub(crate) const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The members of each line.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.text.as_slice();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let length = u32::from_ne_bytes(*length) as usize;
            let (members, behind) = behind.split_at(length);
            rest = behind;
            Some(members)
        })
    }
}

/// Writes the members of lines. What a member is written with begins with its name and ends with
/// the quote that opens its value, if it is a text.
struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    /// The members that lines of one batch share.
    fn asked(&mut self, asked: &Asked) {
        self.raw(br#""time":""#);
        push_time(self.0, asked.time);
        self.raw(br#"","kind":"operation","#);
        self.text(br#""request_id":""#, &asked.request_id);
        if let Some(identity) = &asked.identity {
            self.raw(br#""identity":""#);
            self.raw(&identity.to_ascii());
            self.raw(b"\",");
        }
        self.text(br#""source":""#, &asked.source);
        if let Some(enclave) = &asked.enclave {
            self.word(br#""enclave":""#, enclave.as_str());
        }
        self.word(br#""operation":""#, asked.operation);
    }

    /// The members that each line has for itself.
    fn ended(&mut self, facts: &Facts) {
        if let Some(key) = &facts.key {
            self.word(br#""key":""#, key.as_str());
        }
        if let Some(version) = facts.version {
            self.raw(br#""version":"#);
            push_number(version.into(), |digits| self.raw(digits));
            self.raw(b",");
        }
        if let Some(context) = &facts.context {
            self.raw(br#""context":""#);
            push_hash(self.0, context);
            self.raw(b"\",");
        }
        self.optional(br#""bucket":""#, facts.bucket.as_deref());
        self.optional(br#""epoch":""#, facts.epoch.as_deref());
        self.optional(br#""subject":""#, facts.subject.as_deref());
        self.word(br#""outcome":""#, facts.outcome.as_str());
        self.optional(br#""reason":""#, facts.reason.as_deref());
        self.raw(br#""micros":"#);
        push_number(facts.micros, |digits| self.raw(digits));
        self.raw(b",");
    }

    fn raw(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    /// A text that needs no escapes, as names do not.
    fn word(&mut self, member: &[u8], value: &str) {
        self.raw(member);
        self.raw(value.as_bytes());
        self.raw(b"\",");
    }

    fn text(&mut self, member: &[u8], value: &str) {
        // Without an early end, so that it is done for many bytes at once.
        let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
        if !value.bytes().fold(false, |any, byte| any | special(byte)) {
            return self.word(member, value);
        }
        let (_quote, name) = member.split_last().expect("a member has a name");
        self.raw(name);
        serde_json::to_writer(&mut *self.0, value).expect("a text is JSON");
        self.raw(b",");
    }

    fn optional(&mut self, member: &[u8], value: Option<&str>) {
        if let Some(value) = value {
            self.text(member, value);
        }
    }
}

/// Appends a time as RFC 3339 has it, in UTC, with as many digits of the second as are needed.
fn push_time(out: &mut Vec<u8>, time: UnixMillis) {
    /// 9999-12-30, which is about where jiff ends; what is later is left to it.
    const END: i64 = 253_402_128_000_000;
    const DAY: u64 = 86_400_000;
    let Some(millis) = u64::try_from(time.0).ok().filter(|_| time.0 < END) else {
        return out.extend_from_slice(time.to_timestamp().to_string().as_bytes());
    };
    let (year, month, day) = date_of(millis / DAY);
    let seconds = millis % DAY / 1000;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, digits: usize, mut value: u64| {
        for place in text[at..at + digits].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, seconds / 3600);
    put(14, 2, seconds / 60 % 60);
    put(17, 2, seconds % 60);
    put(20, 3, millis % 1000);
    let fraction = text[19..23].iter().rev().position(|byte| *byte != b'0');
    // The point does not stand alone.
    let length = match 23 - fraction.unwrap_or(0) {
        20 => 19,
        length => length,
    };
    out.extend_from_slice(&text[..length]);
    out.push(b'Z');
}

/// Year, month and day of a day since 1970. Years are taken to begin in March, so that the day
/// that some of them lack is their last.
const fn date_of(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    /// From 1 March of the year 0 to 1 January 1970.
    const BEFORE_1970: u64 = 719_468;
    let days = days + BEFORE_1970;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // Without the leap days of 4 years, but for those of 100, in 400.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on have 153 days in five.
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day_of_month)
}

/// Hands the decimal digits of a number to `push`.
pub(crate) fn push_number(mut number: u64, push: impl FnOnce(&[u8])) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    push(&digits[at..]);
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

/// Appends the lower-case hex digits of a hash.
pub(crate) fn push_hash(out: &mut Vec<u8>, hash: &[u8; 32]) {
    let mut digits = [[0; 2]; 32];
    for (pair, byte) in digits.iter_mut().zip(hash) {
        *pair = HEX[usize::from(*byte)];
    }
    out.extend_from_slice(digits.as_flattened());
}

#[cfg(test)]
mod tests {
    use moat_kms_client::Identity;
    use moat_types::{EnclaveName, KeyName};
    use proptest::prelude::*;

    use super::*;
    use crate::audit::Outcome;
    use crate::audit::line::LineKind;

    /// The line that says the same, which serde writes.
    fn line_of(facts: &Facts) -> AuditLine {
        let mut line = AuditLine::empty(LineKind::Operation);
        let asked = &facts.asked;
        line.time = asked.time.to_timestamp().to_string();
        line.request_id = Some(asked.request_id.to_string());
        line.identity = asked.identity.map(|identity| identity.to_string());
        line.source = Some(asked.source.to_string());
        line.enclave = asked.enclave.as_ref().map(ToString::to_string);
        line.operation = Some(asked.operation.to_owned());
        line.key = facts.key.as_ref().map(ToString::to_string);
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

    fn text(members: &[u8]) -> &str {
        std::str::from_utf8(members).unwrap()
    }

    proptest! {
        #[test]
        fn operations_are_written_as_serde_writes_their_lines(
            texts in prop::array::uniform2(any::<String>()),
            names in prop::array::uniform2(prop::option::of("[a-z0-9]{1,9}")),
            some in prop::array::uniform4(prop::option::of("[a-z\"\\\\\u{0}-\u{20}é]{0,8}")),
            identity: Option<[u8; 32]>, context: Option<[u8; 32]>, version: Option<u32>,
            millis in -1000..300_000_000_000_000_i64, micros: u64, outcome in 0..4_usize,
        ) {
            let [request_id, source] = texts;
            let [enclave, key] = names;
            let [bucket, epoch, subject, reason] = some;
            let outcomes = [Outcome::Begun, Outcome::Allowed, Outcome::Denied, Outcome::Error];
            let asked = Arc::new(Asked {
                time: UnixMillis(millis),
                request_id: request_id.into(),
                identity: identity.map(Identity::from_spki_sha256),
                source: source.into(),
                enclave: enclave.map(|name| EnclaveName::parse(&name).unwrap()),
                operation: "KEY:GENERATE",
            });
            let facts = Facts {
                key: key.map(|name| KeyName::parse(&name).unwrap()),
                version,
                context,
                bucket,
                epoch,
                subject,
                outcome: outcomes[outcome],
                reason,
                micros,
                ..Facts::new(asked.clone())
            };
            // A batch: the same request, and a further one.
            let further = Arc::new(Asked { operation: "KEY:DECRYPT", ..(*asked).clone() });
            let batch = [facts, Facts::new(asked), Facts::new(further)];
            let entries = Entries::of_facts(&batch);
            prop_assert_eq!(entries.count(), 3);
            for (by_hand, facts) in entries.iter().zip(&batch) {
                let by_serde = Entries::of_line(&line_of(facts));
                prop_assert_eq!(text(by_hand), text(by_serde.iter().next().unwrap()));
            }
            prop_assert_eq!(entries.iter().count(), 3);
        }
    }

    #[test]
    fn times_are_written_with_the_digits_they_need() {
        let check = |millis: i64, expected: &str| {
            let mut out = Vec::new();
            push_time(&mut out, UnixMillis(millis));
            assert_eq!(text(&out), expected);
            assert_eq!(text(&out), UnixMillis(millis).to_timestamp().to_string());
        };
        check(0, "1970-01-01T00:00:00Z");
        check(1_500, "1970-01-01T00:00:01.5Z");
        check(951_782_400_010, "2000-02-29T00:00:00.01Z");
        check(951_868_799_999, "2000-02-29T23:59:59.999Z");
        check(253_402_127_999_120, "9999-12-29T23:59:59.12Z");
        for day in 0..60_000 {
            let millis = day * 86_400_000 + day % 1000;
            let text = UnixMillis(millis).to_timestamp().to_string();
            check(millis, &text);
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 9, 10, 4_294_967_295, u64::MAX] {
            let mut out = Vec::new();
            push_number(number, |digits| out.extend_from_slice(digits));
            assert_eq!(text(&out), number.to_string());
        }
    }
}
