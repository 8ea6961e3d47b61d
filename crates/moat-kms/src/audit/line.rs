//! One line of the audit, and the chain that lines form.
//!
//! A line is a JSON object on one line of text. Its last two members are `prev`, the hash of the
//! line before (64 zeros on the first), and `hash`, SHA-256 over the bytes of the line up to and
//! without `,"hash":`. So what is hashed is what is written, and no form of JSON has to be agreed.
//!
//! A checkpoint line carries an Ed25519 signature over a label, the hash of the line before, its
//! own number and its own time: it vouches for the whole chain before it.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_types::UnixMillis;
use serde::{Deserialize, Serialize};

use super::entry::{Entries, push_hash, push_number};

/// The hash of a line.
pub(crate) type Hash = [u8; 32];
/// What stands before the first line.
pub(crate) const GENESIS: Hash = [0; 32];
/// `,"hash":"` + 64 hex digits + `"}`.
const SUFFIX_BYTES: usize = HASH_MEMBER.len() + 64 + 2;
const HASH_MEMBER: &[u8] = b",\"hash\":\"";
/// What the number, the two hashes and the names of their members take at most.
const LINKS_BYTES_MAX: usize = 192;

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineKind {
    /// An operation that someone asked for.
    Operation,
    /// A signature over the chain so far.
    Checkpoint,
    /// Something about the log itself: it was opened, a torn line was set aside.
    Note,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A change is allowed and about to be made; a line with its outcome follows.
    Begun,
    /// Allowed, and done.
    Allowed,
    /// Refused: the caller may not.
    Denied,
    /// Allowed, but it failed.
    Error,
}

impl Outcome {
    /// The text in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// A line as it is read back. Members that a kind of line has no use for are absent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditLine {
    /// The number of the line in its chain, from 1.
    pub seq: u64,
    /// When (RFC 3339, UTC).
    pub time: String,
    /// What the line is about.
    pub kind: LineKind,
    /// The request that the operation came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// In which enclave; absent for the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enclave: Option<String>,
    /// What was asked for, as policies name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The KMS key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The version of the KMS key that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// SHA-256 (hex) of the context of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The bucket of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// The epoch of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// What else the operation was about: an identity, a policy, an enclave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, in microseconds, up to this line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
    /// The text of a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The public key of a checkpoint (base64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The signature of a checkpoint (base64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The hash of the line before.
    pub prev: String,
    /// The hash of this line. Absent only while it is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl AuditLine {
    /// A line with nothing but its kind.
    pub(crate) fn empty(kind: LineKind) -> Self {
        Self {
            seq: 0,
            time: String::new(),
            kind,
            request_id: None,
            identity: None,
            source: None,
            enclave: None,
            operation: None,
            key: None,
            version: None,
            context: None,
            bucket: None,
            epoch: None,
            subject: None,
            outcome: None,
            reason: None,
            micros: None,
            note: None,
            signer: None,
            signature: None,
            prev: String::new(),
            hash: None,
        }
    }
}

/// Where a chain stands: what the next line is linked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// The number of the last line; 0 before the first.
    pub(crate) seq: u64,
    /// Its hash.
    pub(crate) hash: Hash,
}

impl Head {
    pub(crate) const START: Self = Self {
        seq: 0,
        hash: GENESIS,
    };

    /// Links lines to the chain, appends their text to `out`, and moves on to the last of them.
    pub(crate) fn append(&mut self, entries: &Entries, out: &mut Vec<u8>) {
        out.reserve(entries.bytes() + entries.count() * LINKS_BYTES_MAX);
        for members in entries.iter() {
            let start = out.len();
            self.seq += 1;
            out.extend_from_slice(b"{\"seq\":");
            push_number(self.seq, |digits| out.extend_from_slice(digits));
            out.push(b',');
            out.extend_from_slice(members);
            out.extend_from_slice(b"\"prev\":\"");
            push_hash(out, &self.hash);
            out.push(b'"');
            self.hash = sha256(&out[start..]);
            out.extend_from_slice(HASH_MEMBER);
            push_hash(out, &self.hash);
            out.extend_from_slice(b"\"}\n");
        }
    }

    /// Checks that `text` (without its line end) is the next line, and moves on to it.
    pub(crate) fn follow(&mut self, text: &[u8]) -> Result<AuditLine, LineProblem> {
        let (line, hash) = read_line(text)?;
        if line.seq != self.seq + 1 {
            return Err(if line.seq > self.seq {
                LineProblem::Removed {
                    expected: self.seq + 1,
                    found: line.seq,
                }
            } else {
                LineProblem::Reordered {
                    expected: self.seq + 1,
                    found: line.seq,
                }
            });
        }
        if line.prev != hex::encode(self.hash) {
            return Err(LineProblem::Unlinked);
        }
        *self = Self {
            seq: line.seq,
            hash,
        };
        Ok(line)
    }
}

/// Takes a line apart and checks its own hash, not its place in the chain.
pub(crate) fn read_line(text: &[u8]) -> Result<(AuditLine, Hash), LineProblem> {
    let at = text
        .len()
        .checked_sub(SUFFIX_BYTES)
        .ok_or(LineProblem::Malformed)?;
    let (body, suffix) = text.split_at(at);
    if !suffix.starts_with(HASH_MEMBER) || !suffix.ends_with(b"\"}") {
        return Err(LineProblem::Malformed);
    }
    let line: AuditLine = serde_json::from_slice(text).map_err(|_| LineProblem::Malformed)?;
    let hash = sha256(body);
    if line.hash.as_deref() != Some(hex::encode(hash).as_str()) {
        return Err(LineProblem::Changed);
    }
    Ok((line, hash))
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// It is no audit line.
    #[error("it is no line of the audit")]
    Malformed,
    /// Its hash does not fit its bytes.
    #[error("it was changed: its hash does not fit")]
    Changed,
    /// Lines before it are missing.
    #[error("lines before it were removed: expected number {expected}, found {found}")]
    Removed {
        /// The number that should stand here.
        expected: u64,
        /// The number that does.
        found: u64,
    },
    /// It stood further up.
    #[error("lines were reordered: expected number {expected}, found {found}")]
    Reordered {
        /// The number that should stand here.
        expected: u64,
        /// The number that does.
        found: u64,
    },
    /// It is linked to another line than the one before it.
    #[error("it does not follow the line before it")]
    Unlinked,
    /// A checkpoint whose signature is wrong.
    #[error("the signature of the checkpoint is wrong")]
    Signature,
    /// A checkpoint that another key signed.
    #[error("the checkpoint was signed by another key")]
    Signer,
    /// The file ends in the middle of it.
    #[error("the line has no end")]
    Torn,
    /// The log ends before a checkpoint that is known to exist.
    #[error("the log was truncated: line {expected} is known to exist, line {found} is the last")]
    Truncated {
        /// The number of a checkpoint that was written.
        expected: u64,
        /// The number of the last line.
        found: u64,
    },
    /// The chain begins late.
    #[error("the log begins with line {found}: what stood before was removed")]
    Beheaded {
        /// The number of the first line.
        found: u64,
    },
    /// The line at a known checkpoint's number is another one.
    #[error("line {seq} is not the checkpoint that is known to stand there")]
    Replaced {
        /// The number.
        seq: u64,
    },
}

/// Signs checkpoints.
pub struct CheckpointSigner {
    key: Ed25519KeyPair,
}

impl CheckpointSigner {
    /// The signer of a 32-byte seed; `None` for another length.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { key })
    }

    /// The public key, which proves the log to whoever has it.
    pub fn public_key(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.key.public_key().as_ref());
        out
    }

    /// The checkpoint that follows `head`.
    pub(crate) fn checkpoint(&self, head: &Head, now: UnixMillis) -> AuditLine {
        let time = now.to_timestamp().to_string();
        let message = checkpoint_message(&head.hash, head.seq + 1, &time);
        let mut line = AuditLine::empty(LineKind::Checkpoint);
        line.signer = Some(STANDARD.encode(self.public_key()));
        line.signature = Some(STANDARD.encode(self.key.sign(&message).as_ref()));
        line.time = time;
        line
    }
}

impl std::fmt::Debug for CheckpointSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckpointSigner(REDACTED)")
    }
}

/// Checks the signature of a checkpoint that follows `prev`; `signer` must have made it, if one
/// is given. Returns the key that did.
pub(crate) fn check_signature(
    line: &AuditLine,
    prev: &Hash,
    signer: Option<&[u8; 32]>,
) -> Result<[u8; 32], LineProblem> {
    let decode = |text: &Option<String>| {
        let text = text.as_deref().ok_or(LineProblem::Malformed)?;
        STANDARD.decode(text).map_err(|_| LineProblem::Malformed)
    };
    let key: [u8; 32] = decode(&line.signer)?
        .try_into()
        .map_err(|_| LineProblem::Malformed)?;
    if signer.is_some_and(|signer| *signer != key) {
        return Err(LineProblem::Signer);
    }
    let message = checkpoint_message(prev, line.seq, &line.time);
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&message, &decode(&line.signature)?)
        .map_err(|_| LineProblem::Signature)?;
    Ok(key)
}

fn checkpoint_message(prev: &Hash, seq: u64, time: &str) -> Vec<u8> {
    let label = b"moat audit checkpoint v1\0".as_slice();
    [label, prev, &seq.to_be_bytes(), time.as_bytes()].concat()
}

fn sha256(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_each_other_and_no_other() {
        let mut out = Vec::new();
        let mut head = Head::START;
        for note in ["a", "b", "c"] {
            let mut line = AuditLine::empty(LineKind::Note);
            line.note = Some(note.into());
            head.append(&Entries::of_line(&line), &mut out);
        }
        let lines: Vec<&[u8]> = out
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .collect();
        let mut check = Head::START;
        for line in &lines {
            check.follow(line).unwrap();
        }
        assert_eq!(check, head);

        let mut skipped = Head::START;
        skipped.follow(lines[0]).unwrap();
        assert_eq!(
            skipped.follow(lines[2]),
            Err(LineProblem::Removed {
                expected: 2,
                found: 3
            })
        );
        assert_eq!(
            skipped.follow(lines[0]),
            Err(LineProblem::Reordered {
                expected: 2,
                found: 1
            })
        );
        for index in 0..lines[1].len() {
            let mut changed = lines[1].to_vec();
            changed[index] ^= 1;
            let mut head = skipped;
            assert!(head.follow(&changed).is_err(), "{index}");
        }
    }

    #[test]
    fn a_checkpoint_vouches_for_the_line_before_it() {
        let signer = CheckpointSigner::from_seed(&[5; 32]).unwrap();
        let head = Head {
            seq: 9,
            hash: [7; 32],
        };
        let mut line = signer.checkpoint(&head, UnixMillis(1));
        line.seq = 10;
        let public = signer.public_key();
        assert_eq!(check_signature(&line, &[7; 32], Some(&public)), Ok(public));
        assert_eq!(
            check_signature(&line, &[8; 32], None),
            Err(LineProblem::Signature)
        );
        assert_eq!(
            check_signature(&line, &[7; 32], Some(&[1; 32])),
            Err(LineProblem::Signer)
        );
        line.seq = 11;
        assert_eq!(
            check_signature(&line, &[7; 32], None),
            Err(LineProblem::Signature)
        );
    }
}
