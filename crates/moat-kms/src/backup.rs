//! A backup of the state: one file, encrypted under a key of its own that the HSM seals.
//!
//! ```text
//! 8   "MOATKMSB"
//! 2   format version, big-endian: 1
//! 4   length of the header
//!     header: time, number of rows, sealed backup key (id of the HSM key, sealed form)
//!     frames, each: 4 length, ciphertext, tag (16)
//! ```
//!
//! A frame is AES-256-GCM of up to 1 MiB of rows; its nonce is the frame's index (3 zero bytes, 8
//! big-endian) and 1 for the last frame, else 0; its associated data is the SHA-256 of all that
//! stands before the first frame. So nothing can be changed, removed, added or cut off unseen, and
//! a file whose header is whole but whose end is missing is refused. A row is its key and its
//! value, each behind its length: the value as it is sealed in the state, so that even the backup
//! key does not open it.
//!
//! The newest checkpoints of the audits are left out: a restored key manager begins a new audit.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Page, Write, prefix_end};
use moat_types::{Random, SecretBytes, UnixMillis};
use zeroize::Zeroizing;

use crate::codec::{Malformed, Reader, Writer};
use crate::hsm::{Hsm, HsmError, Hsms};
use crate::rows::{ALL_ROWS, ANCHOR_ROWS, Scope, enclave_row};

const MAGIC: &[u8; 8] = b"MOATKMSB";
const VERSION: u16 = 1;
const HEADER_FORMAT: u8 = 1;
/// What the HSM seals the backup key for.
const CONTEXT: &[u8] = b"moat kms backup v1";
/// Rows of one frame, before the last of them.
const FRAME_BYTES: usize = 1 << 20;
/// A header is a time, a number and a sealed key.
const HEADER_BYTES_MAX: usize = 4096;
/// The largest state that is backed up: it is read in one piece, to be of one moment. Half a
/// million keys.
pub const BACKUP_BYTES_MAX: usize = 256 << 20;
/// Rows that are restored in one commit.
const COMMIT_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupInfo {
    /// When it was taken.
    pub taken: UnixMillis,
    /// How many rows it holds.
    pub rows: u64,
}

/// Why a backup could not be taken or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is not a backup of a key manager.
    #[error("this is not a backup of a key manager")]
    NotABackup,
    /// It was written by a later version.
    #[error("the backup has format {0}, this version knows {VERSION}; use a newer version")]
    Version(u16),
    /// It was changed, or cut off.
    #[error("the backup is damaged or cut off; nothing was restored")]
    Damaged,
    /// The state is too large.
    #[error("the state has more than {} MiB, which is the most that a backup holds", BACKUP_BYTES_MAX >> 20)]
    TooLarge,
    /// There is a state already.
    #[error("there is a state at this place already; restore into a new folder or database")]
    NotEmpty,
    /// The HSM key is not the one that the backup needs.
    #[error("the backup does not open: {0}")]
    Hsm(#[from] HsmError),
    /// The metadata engine failed.
    #[error("key manager state: {0}")]
    Store(#[from] moat_meta::Error),
}

/// Writes a backup of all rows, which are of one moment.
pub(crate) async fn write<M: MetaStore>(
    store: &M,
    hsms: &Hsms,
    current: [u8; 8],
    now: UnixMillis,
    random: &dyn Random,
) -> Result<(Vec<u8>, BackupInfo), BackupError> {
    let (start, end) = all_rows();
    let page = store
        .scan(start..end, usize::MAX >> 1, BACKUP_BYTES_MAX)
        .await?;
    if page.bytes() >= BACKUP_BYTES_MAX {
        return Err(BackupError::TooLarge);
    }
    let mut key = Zeroizing::new([0; 32]);
    random.fill(&mut *key);
    let sealed_key = hsms
        .seal(current, CONTEXT, SecretBytes::new(key.to_vec()))
        .await?;
    let info = BackupInfo {
        taken: now,
        rows: kept(&page).count() as u64,
    };
    let mut out = preamble(info, &sealed_key);
    let sealer = Frames::new(&key[..], &out);
    let mut frames = frames_of(&page).into_iter().enumerate().peekable();
    while let Some((index, frame)) = frames.next() {
        let sealed = sealer.seal(index as u64, frames.peek().is_none(), frame);
        out.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        out.extend_from_slice(&sealed);
    }
    Ok((out, info))
}

/// Puts a backup into an engine that holds no state. Nothing is written unless the whole file
/// is sound and everything in it can be opened with the given HSM keys.
///
/// # Errors
/// `BackupError` says why not.
pub async fn restore<M: MetaStore>(
    store: &M,
    hsm: Box<dyn Hsm>,
    hsms_old: Vec<Box<dyn Hsm>>,
    random: std::sync::Arc<dyn Random>,
    file: &[u8],
) -> Result<BackupInfo, BackupError> {
    let hsms = Hsms::new(hsm, hsms_old, random);
    let (start, end) = all_rows();
    if !store.last(start..end).await?.is_empty() {
        return Err(BackupError::NotEmpty);
    }
    let (info, rows) = read(&hsms, file).await?;
    let enclaves = enclave_row(&Scope::System);
    for (key, value) in rows.iter().filter(|(key, _)| key.starts_with(&enclaves)) {
        hsms.open(key, value).await?;
    }
    put(store, rows, &enclaves).await?;
    Ok(info)
}

/// The rows, once all of the file is known to be sound.
async fn read(hsms: &Hsms, file: &[u8]) -> Result<(BackupInfo, Vec<(Bytes, Bytes)>), BackupError> {
    let rest = file.strip_prefix(MAGIC).ok_or(BackupError::NotABackup)?;
    let (version, rest) = rest.split_first_chunk().ok_or(BackupError::Damaged)?;
    match u16::from_be_bytes(*version) {
        VERSION => {}
        other => return Err(BackupError::Version(other)),
    }
    let (header, mut rest) = take(rest, HEADER_BYTES_MAX)?;
    let (info, sealed_key) = parse_header(header).map_err(|_| BackupError::Damaged)?;
    let preamble = &file[..file.len() - rest.len()];
    let key = hsms.open(CONTEXT, &sealed_key).await?;
    let opener = Frames::new(key.expose(), preamble);
    let mut rows = Vec::new();
    let mut index = 0;
    while !rest.is_empty() {
        let (sealed, behind) = take(rest, usize::MAX)?;
        rest = behind;
        let frame = opener
            .open(index, rest.is_empty(), sealed)
            .ok_or(BackupError::Damaged)?;
        let mut reader = Reader::new(&frame, HEADER_FORMAT).map_err(|_| BackupError::Damaged)?;
        while !reader.is_empty() {
            let mut field = || reader.bytes().map_err(|_| BackupError::Damaged);
            rows.push((
                Bytes::copy_from_slice(field()?),
                Bytes::copy_from_slice(field()?),
            ));
        }
        index += 1;
    }
    match index > 0 && rows.len() as u64 == info.rows {
        true => Ok((info, rows)),
        false => Err(BackupError::Damaged),
    }
}

/// Writes the rows, those of the enclaves last: without the system's row nothing takes a restore
/// that was cut off for a state.
async fn put<M: MetaStore>(
    store: &M,
    rows: Vec<(Bytes, Bytes)>,
    enclaves: &Bytes,
) -> Result<(), BackupError> {
    let (last, first): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|(key, _)| key.starts_with(enclaves));
    let mut batch = (Vec::new(), 0);
    for (key, value) in first {
        batch.1 += key.len() + value.len();
        batch.0.push(Write::Put(key, value));
        if batch.1 >= COMMIT_BYTES {
            let (writes, _) = std::mem::take(&mut batch);
            // Without checks a commit can't be refused.
            let _ = store.commit(Vec::new(), writes).await?;
        }
    }
    let system = Check {
        key: enclaves.clone(),
        expected: None,
    };
    batch
        .0
        .extend(last.into_iter().map(|(key, value)| Write::Put(key, value)));
    match store.commit(vec![system], batch.0).await? {
        Outcome::Committed => Ok(()),
        Outcome::CheckFailed(_) => Err(BackupError::NotEmpty),
    }
}

fn all_rows() -> (Bytes, Bytes) {
    let prefix = Bytes::from_static(ALL_ROWS.as_bytes());
    let end = prefix_end(&prefix);
    (prefix, end)
}

/// The rows that a backup holds.
fn kept(page: &Page) -> impl Iterator<Item = (&[u8], &[u8])> {
    page.rows()
        .filter(|(key, _)| !key.starts_with(ANCHOR_ROWS.as_bytes()))
}

fn preamble(info: BackupInfo, sealed_key: &[u8]) -> Vec<u8> {
    let mut header = Writer::new(HEADER_FORMAT);
    header.time(info.taken).u64(info.rows).bytes(sealed_key);
    let header = header.as_slice();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes());
    out.extend_from_slice(header);
    out
}

fn parse_header(header: &[u8]) -> Result<(BackupInfo, Vec<u8>), Malformed> {
    let mut reader = Reader::new(header, HEADER_FORMAT)?;
    let info = BackupInfo {
        taken: reader.time()?,
        rows: reader.u64()?,
    };
    let sealed_key = reader.bytes()?.to_vec();
    reader.end()?;
    Ok((info, sealed_key))
}

/// The rows in pieces of about [`FRAME_BYTES`]; at least one, so that an end can be marked.
fn frames_of(page: &Page) -> Vec<Vec<u8>> {
    let mut frames = vec![vec![HEADER_FORMAT]];
    for (key, value) in kept(page) {
        if frames
            .last()
            .is_some_and(|frame| frame.len() >= FRAME_BYTES)
        {
            frames.push(vec![HEADER_FORMAT]);
        }
        let frame = frames.last_mut().expect("there is one from the beginning");
        for field in [key, value] {
            frame.extend_from_slice(&(field.len() as u32).to_be_bytes());
            frame.extend_from_slice(field);
        }
    }
    frames
}

/// A field behind its length of 4 bytes, and what follows it.
fn take(from: &[u8], max: usize) -> Result<(&[u8], &[u8]), BackupError> {
    let (length, rest) = from.split_first_chunk().ok_or(BackupError::Damaged)?;
    let length = u32::from_be_bytes(*length) as usize;
    match length <= max {
        true => rest.split_at_checked(length).ok_or(BackupError::Damaged),
        false => Err(BackupError::Damaged),
    }
}

/// Seals and opens frames under one backup key.
struct Frames {
    key: LessSafeKey,
    preamble_hash: [u8; 32],
}

impl Frames {
    fn new(key: &[u8], preamble: &[u8]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("a backup key has 32 bytes");
        let mut preamble_hash = [0; 32];
        preamble_hash.copy_from_slice(digest(&SHA256, preamble).as_ref());
        Self {
            key: LessSafeKey::new(key),
            preamble_hash,
        }
    }

    fn seal(&self, index: u64, last: bool, mut frame: Vec<u8>) -> Vec<u8> {
        self.key
            .seal_in_place_append_tag(
                nonce(index, last),
                Aad::from(self.preamble_hash),
                &mut frame,
            )
            .expect("a frame is far below the limit of the cipher");
        frame
    }

    fn open(&self, index: u64, last: bool, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut frame = sealed.to_vec();
        let opened = self
            .key
            .open_in_place(
                nonce(index, last),
                Aad::from(self.preamble_hash),
                &mut frame,
            )
            .ok()?
            .len();
        frame.truncate(opened);
        Some(frame)
    }
}

fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}
