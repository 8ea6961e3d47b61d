//! The blob format: a header, then 64 KiB chunks, each sealed on its own (STREAM construction,
//! eprint 2015/189).
//!
//! ```text
//! offset  bytes  field
//! 0       8      magic "MOATBLOB"
//! 8       2      format version, big-endian: 1
//! 10      1      chunk size as a power of two: 16
//! 11      5      zero
//! 16      16     blob id
//! 32      ..     chunks: 65,536 bytes of plaintext sealed, then a 16-byte tag; the last may be
//!                shorter, never empty
//! ```
//!
//! Nonce of a chunk: 3 zero bytes, its index as a 64-bit big-endian number from 0, then 1 for the
//! last chunk, else 0. Associated data: the whole header. The DEK is random for each blob, so no
//! nonce is ever used twice. A blob holds at least one byte: empty objects have none.

use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use moat_types::BlobId;

use crate::{Dek, Error};

const MAGIC: &[u8; 8] = b"MOATBLOB";
const FORMAT_VERSION: u16 = 1;
const CHUNK_LOG2: u8 = 16;

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 32;
/// Plaintext bytes of every chunk but the last.
pub const CHUNK_BYTES: u64 = 1 << CHUNK_LOG2;
/// Bytes of a chunk's tag.
pub const TAG_BYTES: u64 = 16;
/// Sealed bytes of every chunk but the last.
pub const SEALED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;

fn header(id: BlobId) -> [u8; HEADER_BYTES as usize] {
    let mut out = [0; HEADER_BYTES as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    out[10] = CHUNK_LOG2;
    out[16..].copy_from_slice(id.as_bytes());
    out
}

fn nonce(index: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&index.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Seals a blob as its bytes come in.
///
/// The caller pushes plaintext, copies the sealed bytes away whenever enough have gathered, and
/// calls `finish` for the rest. Sealing happens in place in the buffer that is handed out, so a byte is
/// copied once.
pub struct BlobSealer {
    key: LessSafeKey,
    header: [u8; HEADER_BYTES as usize],
    /// Sealed bytes not yet taken, then the plaintext of the chunk that is filling.
    buffer: Vec<u8>,
    chunk_start: usize,
    next_index: u64,
    take_bytes: usize,
    plain_bytes: u64,
}

impl BlobSealer {
    /// Begins a blob. `take_bytes` is how many sealed bytes should gather before
    /// `is_ready`.
    pub fn new(dek: &Dek, id: BlobId, take_bytes: usize, capacity: usize) -> Self {
        let header = header(id);
        let mut buffer = Vec::with_capacity(capacity + header.len());
        buffer.extend_from_slice(&header);
        let chunk_start = buffer.len();
        Self {
            key: dek.chunk_key(),
            header,
            buffer,
            chunk_start,
            next_index: 0,
            take_bytes,
            plain_bytes: 0,
        }
    }

    /// Takes in some of `plain` and returns how many bytes: fewer than all only when `is_ready`.
    pub fn push(&mut self, plain: &[u8]) -> usize {
        let mut taken = 0;
        while taken < plain.len() {
            let filled = self.buffer.len() - self.chunk_start;
            if filled == CHUNK_BYTES as usize {
                // More bytes follow, so this chunk is not the last one.
                self.seal_chunk(false);
                if self.is_ready() {
                    break;
                }
                continue;
            }
            let count = (CHUNK_BYTES as usize - filled).min(plain.len() - taken);
            self.buffer.extend_from_slice(&plain[taken..taken + count]);
            taken += count;
        }
        self.plain_bytes += taken as u64;
        taken
    }

    /// Whether enough sealed bytes have gathered to be copied away.
    pub fn is_ready(&self) -> bool {
        self.chunk_start >= self.take_bytes
    }

    /// The sealed bytes that have gathered.
    pub fn sealed(&self) -> &[u8] {
        &self.buffer[..self.chunk_start]
    }

    /// Forgets the sealed bytes that have gathered; the memory is used again.
    pub fn clear_sealed(&mut self) {
        self.buffer.copy_within(self.chunk_start.., 0);
        self.buffer.truncate(self.buffer.len() - self.chunk_start);
        self.chunk_start = 0;
    }

    /// Plaintext bytes pushed so far.
    pub const fn plain_bytes(&self) -> u64 {
        self.plain_bytes
    }

    /// Seals the last chunk and returns what was not cleared yet. The blob must hold at least one
    /// byte.
    pub fn finish(mut self) -> Vec<u8> {
        debug_assert!(self.plain_bytes > 0, "an empty object has no blob");
        self.seal_chunk(true);
        std::mem::take(&mut self.buffer)
    }

    fn seal_chunk(&mut self, last: bool) {
        let tag = self
            .key
            .seal_in_place_separate_tag(
                nonce(self.next_index, last),
                Aad::from(&self.header),
                &mut self.buffer[self.chunk_start..],
            )
            .expect("a chunk is far below the limit of the cipher");
        self.buffer.extend_from_slice(tag.as_ref());
        self.chunk_start = self.buffer.len();
        self.next_index += 1;
    }
}

/// Where the chunks of a blob of a known plaintext length stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLayout {
    plain_bytes: u64,
}

/// Consecutive chunks to read and open at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The bytes of the blob to read.
    pub sealed: Range<u64>,
    /// Index of the first chunk.
    pub first: u64,
    /// The plaintext wanted, counted from the first chunk's first byte.
    pub wanted: Range<u64>,
}

impl BlobLayout {
    /// The layout of a blob of `plain_bytes` bytes, at least 1.
    pub const fn new(plain_bytes: u64) -> Self {
        Self { plain_bytes }
    }

    /// Plaintext length in bytes.
    pub const fn plain_bytes(self) -> u64 {
        self.plain_bytes
    }

    /// Number of chunks.
    pub const fn chunks(self) -> u64 {
        self.plain_bytes.div_ceil(CHUNK_BYTES)
    }

    /// Length of the sealed blob in bytes.
    pub const fn sealed_bytes(self) -> u64 {
        HEADER_BYTES + self.plain_bytes + self.chunks() * TAG_BYTES
    }

    /// The run that holds the plaintext from `start` on: at most `chunks_max` chunks, and not
    /// beyond `end`. `start < end <= plain_bytes`.
    pub fn run(self, start: u64, end: u64, chunks_max: u64) -> Run {
        let first = start / CHUNK_BYTES;
        let last = ((end - 1) / CHUNK_BYTES).min(first + chunks_max - 1);
        let sealed_start = HEADER_BYTES + first * SEALED_CHUNK_BYTES;
        let sealed_end = (HEADER_BYTES + (last + 1) * SEALED_CHUNK_BYTES).min(self.sealed_bytes());
        let origin = first * CHUNK_BYTES;
        let stop = end.min((last + 1) * CHUNK_BYTES);
        Run {
            sealed: sealed_start..sealed_end,
            first,
            wanted: start - origin..stop - origin,
        }
    }
}

/// Opens the chunks of a run in place. Calls `piece` with the range in `buffer` of each wanted
/// piece of plaintext, in order, after its whole chunk was proved genuine.
///
/// # Errors
/// `Error::Chunk` names the first chunk that does not open; the pieces before it were genuine.
pub fn open_run(
    dek: &Dek,
    id: BlobId,
    layout: BlobLayout,
    run: &Run,
    buffer: &mut [u8],
    mut piece: impl FnMut(Range<usize>),
) -> Result<(), Error> {
    let key = dek.chunk_key();
    let header = header(id);
    let (mut at, mut index, mut plain_at) = (0usize, run.first, 0u64);
    while at < buffer.len() {
        let sealed = (buffer.len() - at).min(SEALED_CHUNK_BYTES as usize);
        let last = index + 1 == layout.chunks();
        let plain = key
            .open_in_place(
                nonce(index, last),
                Aad::from(&header),
                &mut buffer[at..at + sealed],
            )
            .map_err(|_| Error::Chunk { index })?
            .len() as u64;
        let from = run.wanted.start.max(plain_at).min(plain_at + plain);
        let to = run.wanted.end.min(plain_at + plain).max(from);
        if from < to {
            piece(at + (from - plain_at) as usize..at + (to - plain_at) as usize);
        }
        at += sealed;
        index += 1;
        plain_at += CHUNK_BYTES;
    }
    Ok(())
}

/// Checks that these are the first bytes of blob `id`.
///
/// # Errors
/// `Error::Header` if not.
pub fn check_header(id: BlobId, bytes: &[u8]) -> Result<(), Error> {
    if bytes == header(id) {
        Ok(())
    } else {
        Err(Error::Header)
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;
    use proptest::prelude::*;

    use super::*;

    const CHUNK: usize = CHUNK_BYTES as usize;

    fn seal(dek: &Dek, id: BlobId, plain: &[u8]) -> Vec<u8> {
        let mut sealer = BlobSealer::new(dek, id, 3 * CHUNK, 4 * CHUNK);
        let mut out = Vec::new();
        for piece in plain.chunks(10_007) {
            let mut rest = piece;
            while !rest.is_empty() {
                let taken = sealer.push(rest);
                rest = &rest[taken..];
                if sealer.is_ready() {
                    out.extend_from_slice(sealer.sealed());
                    sealer.clear_sealed();
                }
            }
        }
        out.extend(sealer.finish());
        out
    }

    fn open(
        dek: &Dek,
        id: BlobId,
        sealed: &[u8],
        length: u64,
        range: Range<u64>,
        chunks_max: u64,
    ) -> Result<Vec<u8>, Error> {
        let layout = BlobLayout::new(length);
        let (mut out, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let run = layout.run(at, range.end, chunks_max);
            let end = (run.sealed.end as usize).min(sealed.len());
            let mut buffer = sealed[(run.sealed.start as usize).min(end)..end].to_vec();
            let mut pieces = Vec::new();
            open_run(dek, id, layout, &run, &mut buffer, |piece| {
                pieces.push(piece)
            })?;
            for piece in pieces {
                out.extend_from_slice(&buffer[piece]);
            }
            at += run.wanted.end - run.wanted.start;
        }
        Ok(out)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn sealed_length_is_what_the_layout_says() {
        let dek = Dek::random(&SystemRandom);
        let id = BlobId::random(&SystemRandom);
        for length in [
            1,
            100,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            5 * CHUNK,
            5 * CHUNK + 7,
        ] {
            let sealed = seal(&dek, id, &sample(length));
            assert_eq!(
                sealed.len() as u64,
                BlobLayout::new(length as u64).sealed_bytes()
            );
            check_header(id, &sealed[..HEADER_BYTES as usize]).expect("its own header");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_range_reads_back(length in 1usize..400_000, a in 0usize..400_000, b in 0usize..400_000, run in 1u64..5) {
            let (a, b) = (a % length, b % length);
            let (start, end) = (a.min(b), a.max(b) + 1);
            let dek = Dek::random(&SystemRandom);
            let id = BlobId::random(&SystemRandom);
            let plain = sample(length);
            let sealed = seal(&dek, id, &plain);
            let read = open(&dek, id, &sealed, length as u64, start as u64..end as u64, run);
            prop_assert_eq!(read.as_deref(), Ok(&plain[start..end]));
        }
    }

    #[test]
    fn a_changed_bit_anywhere_in_a_chunk_is_refused() {
        let dek = Dek::random(&SystemRandom);
        let id = BlobId::random(&SystemRandom);
        let length = 2 * CHUNK + 50;
        let good = seal(&dek, id, &sample(length));
        for at in [
            32,
            33,
            40_000,
            32 + CHUNK,
            32 + CHUNK + 15,
            32 + CHUNK + 16,
            good.len() - 1,
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let read = open(&dek, id, &bad, length as u64, 0..length as u64, 8);
            assert!(matches!(read, Err(Error::Chunk { .. })), "byte {at}");
        }
    }

    #[test]
    fn truncated_reordered_extended_or_foreign_chunks_are_refused() {
        let dek = Dek::random(&SystemRandom);
        let (id, other) = (BlobId::random(&SystemRandom), BlobId::random(&SystemRandom));
        let sealed_chunk = SEALED_CHUNK_BYTES as usize;
        let length = 3 * CHUNK;
        let good = seal(&dek, id, &sample(length));
        let all =
            |bytes: &[u8], length: usize| open(&dek, id, bytes, length as u64, 0..length as u64, 8);
        assert!(all(&good, length).is_ok());

        // Cut at a chunk's border, with a record that was made to agree.
        assert_eq!(
            all(&good[..32 + 2 * sealed_chunk], 2 * CHUNK),
            Err(Error::Chunk { index: 1 })
        );
        // A record that claims more than there is.
        assert!(all(&good, length + 1).is_err());

        let mut swapped = good.clone();
        let (first, second) = swapped[32..].split_at_mut(sealed_chunk);
        first.swap_with_slice(&mut second[..sealed_chunk]);
        assert_eq!(all(&swapped, length), Err(Error::Chunk { index: 0 }));

        // The same bytes under another blob's name.
        let read = open(&dek, other, &good, length as u64, 0..10, 8);
        assert_eq!(read, Err(Error::Chunk { index: 0 }));
        // Another blob's key.
        let read = open(
            &Dek::random(&SystemRandom),
            id,
            &good,
            length as u64,
            0..10,
            8,
        );
        assert_eq!(read, Err(Error::Chunk { index: 0 }));
    }
}
