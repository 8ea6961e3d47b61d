//! The write-ahead log, byte by byte.
//!
//! A segment is a file of blocks of 4,096 bytes; integers are little-endian; checksums are
//! CRC-64/NVME. Block 0 is its header:
//!
//! ```text
//!  0   8  magic "MOATWAL\n"
//!  8   4  format version, 1
//! 12   4  bytes of a block, 4,096
//! 16   8  number of the segment; also in the file's name
//! 24  16  salt, random for each use of a file
//! 40   8  checksum of bytes 0..40
//! 48      zeros
//! ```
//!
//! Frames follow, each from the start of a block, the rest of its last block zeros. No block is
//! written again while its segment is in use, so a power cut can't hurt a frame that was synced
//! before. One frame is one batch of commits, written and synced before the next one is begun.
//!
//! ```text
//!  0   8  checksum of the salt and of bytes 8..32
//!  8   8  sequence: 1 for the first frame of the log's life, then one more for each frame
//! 16   4  length of the payload in bytes
//! 20   4  number of writes in the payload
//! 24   8  checksum of the payload
//! 32      payload: for each write
//!           1  kind: 1 put, 2 delete
//!           2  length of the key
//!           4  length of the value, 0 for a delete
//!              key, value
//! ```
//!
//! The salt keeps frames of an earlier use of the file, and anything a client may have stored,
//! from passing for frames of this use.

use std::ops::Range;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::Write;

pub(in crate::embedded) const BLOCK_BYTES: usize = 4_096;
pub(in crate::embedded) const FRAME_HEADER_BYTES: usize = 32;
pub(super) const SEGMENT_HEADER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"MOATWAL\n";
const VERSION: u32 = 1;
const WRITE_HEADER_BYTES: usize = 7;
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// Bytes of a frame's payload that a reader accepts; the engine's own limits are lower.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) salt: [u8; 16],
}

impl SegmentHeader {
    /// The whole first block.
    pub(super) fn to_block(self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        block.extend_from_slice(&self.number.to_le_bytes());
        block.extend_from_slice(&self.salt);
        let checksum = checksum([&block]);
        block.extend_from_slice(&checksum.to_le_bytes());
        block.resize(BLOCK_BYTES, 0);
        block
    }

    /// Reads a header, or says in words what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(format!("is {} bytes long", bytes.len()));
        };
        if bytes[..8] != *MAGIC {
            return Err("does not begin as a log does".into());
        }
        // The version comes before the checksum, which a later version may compute otherwise.
        let (version, block) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if version != VERSION || block != BLOCK_BYTES as u32 {
            return Err(format!(
                "has format {version} with blocks of {block} bytes, and this program reads format \
                 {VERSION} with blocks of {BLOCK_BYTES}"
            ));
        }
        if u64_at(bytes, 40) != checksum([&bytes[..40]]) {
            return Err("has a damaged header".into());
        }
        Ok(Self {
            number: u64_at(bytes, 16),
            salt: bytes[24..40].try_into().expect("16 bytes"),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) sequence: u64,
    pub(super) payload_bytes: u32,
    pub(super) writes: u32,
    pub(super) payload_checksum: u64,
}

impl FrameHeader {
    fn to_bytes(self, salt: &[u8; 16]) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.writes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = checksum([salt, &bytes[8..]]);
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if these bytes are no frame's header in a segment with this salt.
    pub(super) fn parse(bytes: &[u8], salt: &[u8; 16]) -> Option<Self> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        if u64_at(bytes, 0) != checksum([salt, &bytes[8..]]) {
            return None;
        }
        Some(Self {
            sequence: u64_at(bytes, 8),
            payload_bytes: u32_at(bytes, 16),
            writes: u32_at(bytes, 20),
            payload_checksum: u64_at(bytes, 24),
        })
    }
}

/// Bytes that a write takes in a payload.
pub(in crate::embedded) fn encoded_bytes(write: &Write) -> usize {
    WRITE_HEADER_BYTES
        + match write {
            Write::Put(key, value) => key.len() + value.len(),
            Write::Delete(key) => key.len(),
        }
}

/// A frame being filled. Its sequence and checksums are set when it is sealed.
pub(in crate::embedded) struct FrameBuilder {
    buffer: Vec<u8>,
    rows: Vec<RowPlace>,
}

/// Where a row stands in a frame; without a value it is deleted.
struct RowPlace {
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl FrameBuilder {
    pub(in crate::embedded) fn with_capacity(payload_bytes: usize, rows: usize) -> Self {
        let mut buffer = Vec::with_capacity(FRAME_HEADER_BYTES + payload_bytes);
        buffer.resize(FRAME_HEADER_BYTES, 0);
        Self {
            buffer,
            rows: Vec::with_capacity(rows),
        }
    }

    /// Appends a write. The caller keeps the limits: keys below 64 KiB, values below 4 GiB.
    pub(in crate::embedded) fn push(&mut self, write: &Write) {
        let (kind, key, value) = match write {
            Write::Put(key, value) => (PUT, key, &value[..]),
            Write::Delete(key) => (DELETE, key, &[][..]),
        };
        self.buffer.push(kind);
        let key_bytes = key.len() as u16;
        let value_bytes = value.len() as u32;
        self.buffer.extend_from_slice(&key_bytes.to_le_bytes());
        self.buffer.extend_from_slice(&value_bytes.to_le_bytes());
        let key_start = self.buffer.len();
        self.buffer.extend_from_slice(key);
        let key_end = self.buffer.len();
        self.buffer.extend_from_slice(value);
        self.rows.push(RowPlace {
            key: key_start..key_end,
            value: (kind == PUT).then_some(key_end..self.buffer.len()),
        });
    }

    pub(in crate::embedded) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Completes the frame for a segment.
    pub(super) fn seal(mut self, sequence: u64, salt: &[u8; 16]) -> Frame {
        let payload = &self.buffer[FRAME_HEADER_BYTES..];
        let header = FrameHeader {
            sequence,
            payload_bytes: payload.len() as u32,
            writes: self.rows.len() as u32,
            payload_checksum: checksum([payload]),
        };
        let header = header.to_bytes(salt);
        self.buffer[..FRAME_HEADER_BYTES].copy_from_slice(&header);
        Frame {
            bytes: self.buffer.into(),
            rows: self.rows,
        }
    }
}

/// A sealed frame: what goes to the disk, and the same bytes as rows.
pub(in crate::embedded) struct Frame {
    pub(super) bytes: Bytes,
    rows: Vec<RowPlace>,
}

impl Frame {
    /// Keys and values in the order written; they share the frame's memory.
    pub(in crate::embedded) fn rows(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        self.rows.iter().map(|row| {
            let value = row.value.clone().map(|value| self.bytes.slice(value));
            (self.bytes.slice(row.key.clone()), value)
        })
    }

    /// Takes a frame apart that was read; `bytes` is the header and the payload. `None` if the
    /// payload is not what the header says.
    pub(super) fn parse(bytes: Bytes, header: FrameHeader) -> Option<Self> {
        let payload = &bytes[FRAME_HEADER_BYTES..];
        if checksum([payload]) != header.payload_checksum {
            return None;
        }
        let mut rows = Vec::new();
        let mut at = FRAME_HEADER_BYTES;
        while at < bytes.len() {
            let header: &[u8; WRITE_HEADER_BYTES] = bytes[at..].first_chunk()?;
            let key_bytes = usize::from(u16::from_le_bytes([header[1], header[2]]));
            let value_bytes = u32_at(header, 3) as usize;
            let key = at + WRITE_HEADER_BYTES..at + WRITE_HEADER_BYTES + key_bytes;
            let value = key.end..key.end.checked_add(value_bytes)?;
            at = value.end;
            let value = match header[0] {
                PUT => Some(value),
                DELETE if value_bytes == 0 => None,
                _ => return None,
            };
            rows.push(RowPlace { key, value });
        }
        let whole = at == bytes.len() && rows.len() == header.writes as usize;
        whole.then_some(Self { bytes, rows })
    }
}

/// The next multiple of a block.
pub(in crate::embedded) const fn blocks(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

fn checksum<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 16] = *b"0123456789abcdef";

    fn sample() -> Frame {
        let mut frame = FrameBuilder::with_capacity(100, 3);
        frame.push(&Write::Put(b"key"[..].into(), b"value"[..].into()));
        frame.push(&Write::Delete(b"gone"[..].into()));
        frame.push(&Write::Put(b""[..].into(), b""[..].into()));
        frame.seal(7, &SALT)
    }

    /// The sums below were computed by an implementation of the definition, bit by bit.
    #[test]
    fn the_checksum_is_crc_64_nvme() {
        assert_eq!(checksum([b"12345", b"6789"]), 0xAE8B_1486_0A79_9888);
    }

    #[test]
    fn segment_header_bytes_are_as_drawn() {
        let header = SegmentHeader {
            number: 0x0102,
            salt: SALT,
        };
        let block = header.to_block();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(&block[..16], b"MOATWAL\n\x01\0\0\0\0\x10\0\0");
        assert_eq!(&block[16..24], &[2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&block[24..40], &SALT);
        assert_eq!(&block[40..48], &0xBE82_CD23_4DA4_C6CC_u64.to_le_bytes());
        assert!(block[48..].iter().all(|byte| *byte == 0));
        assert_eq!(SegmentHeader::parse(&block), Ok(header));
    }

    #[test]
    fn frame_bytes_are_as_drawn() {
        let frame = sample();
        let expected_payload =
            b"\x01\x03\0\x05\0\0\0keyvalue\x02\x04\0\0\0\0\0gone\x01\0\0\0\0\0\0";
        assert_eq!(&frame.bytes[8..16], &7_u64.to_le_bytes());
        assert_eq!(&frame.bytes[16..20], &33_u32.to_le_bytes());
        assert_eq!(&frame.bytes[20..24], &3_u32.to_le_bytes());
        assert_eq!(&frame.bytes[32..], expected_payload);
        assert_eq!(&frame.bytes[..8], &0xB248_7B62_0BF4_864E_u64.to_le_bytes());
        assert_eq!(
            &frame.bytes[24..32],
            &0x6379_2F79_BCB4_D3CB_u64.to_le_bytes()
        );
    }

    #[test]
    fn frames_round_trip() {
        let frame = sample();
        let header = FrameHeader::parse(&frame.bytes, &SALT).unwrap();
        assert_eq!(header.sequence, 7);
        let again = Frame::parse(frame.bytes.clone(), header).unwrap();
        let rows: Vec<_> = again.rows().collect();
        assert_eq!(
            rows,
            [
                (Bytes::from("key"), Some(Bytes::from("value"))),
                (Bytes::from("gone"), None),
                (Bytes::new(), Some(Bytes::new())),
            ]
        );
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let frame = sample();
        for bit in 0..frame.bytes.len() * 8 {
            let mut bytes = frame.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let parsed = FrameHeader::parse(&bytes, &SALT)
                .and_then(|header| Frame::parse(bytes.into(), header));
            assert!(parsed.is_none(), "bit {bit}");
        }
        let block = SegmentHeader {
            number: 1,
            salt: SALT,
        }
        .to_block();
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = block.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::parse(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_use_of_the_file_is_none() {
        let mut salt = SALT;
        salt[15] ^= 1;
        assert_eq!(FrameHeader::parse(&sample().bytes, &salt), None);
    }
}
