//! Reads the log when the engine is opened.
//!
//! Each frame was synced before the next one was begun. So a frame that is not whole was never
//! answered for if it is the last one: the power went while it was written, and it is dropped. If
//! a later frame exists, it had been synced and was damaged since: the engine refuses to open
//! rather than to lose commits that were answered for.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, Frame, FrameHeader, PAYLOAD_BYTES_MAX, SegmentHeader, blocks,
};
use super::{NEW_NAME, PREFIX, Segment, segment_name};
use crate::Error;
use crate::embedded::tree::Flushed;
use crate::files::{DataFile, Files};

/// Bytes read at a time while looking for frames after a broken one.
const LOOK_BYTES: usize = 1 << 20;

/// What the log holds beyond the tree.
pub(in crate::embedded) struct Recovered {
    /// In order; the last one is where the log goes on.
    pub(in crate::embedded) segments: Vec<RecoveredSegment>,
    /// The sequence of the next frame.
    pub(in crate::embedded) sequence: u64,
    /// Files whose content is not needed any more.
    pub(in crate::embedded) spare_names: Vec<String>,
}

pub(in crate::embedded) struct RecoveredSegment {
    pub(in crate::embedded) segment: Segment,
    pub(in crate::embedded) frames: Vec<Frame>,
    /// Where its next frame would begin.
    pub(in crate::embedded) position: u64,
}

/// Whether the folder holds a log.
pub(in crate::embedded) fn has_segments(names: &[String]) -> bool {
    names.iter().any(|name| segment_number(name).is_some())
}

/// Reads all segments that follow what the tree holds, and makes them durable once more: a process
/// that died between writing and syncing leaves a frame that can be read and that a power cut
/// would still take away.
pub(in crate::embedded) fn recover(
    files: &dyn Files,
    flushed: Flushed,
) -> Result<Recovered, Error> {
    let (numbers, spare_names) = sort_names(files.list()?, flushed)?;
    let mut sequence = flushed.sequence + 1;
    let mut segments = Vec::new();
    let mut broken: Option<String> = None;
    for number in numbers {
        let read = read_segment(files, number, &mut sequence)?;
        broken = broken.or(read.broken);
        segments.push(read.segment);
    }
    if let Some(place) = broken {
        tracing::warn!(
            place,
            "the last write before the crash was not complete and is dropped; it was never answered"
        );
    }
    Ok(Recovered {
        segments,
        sequence,
        spare_names,
    })
}

/// Numbers of the segments that are needed, ascending, and names of files that are not.
fn sort_names(names: Vec<String>, flushed: Flushed) -> Result<(Vec<u64>, Vec<String>), Error> {
    let mut numbers = Vec::new();
    let mut spare_names = Vec::new();
    for name in names {
        match segment_number(&name) {
            Some(number) if number > flushed.segment => numbers.push(number),
            Some(_) => spare_names.push(name),
            None if name == NEW_NAME => spare_names.push(name),
            None => {}
        }
    }
    numbers.sort_unstable();
    for (number, expected) in numbers.iter().zip(flushed.segment + 1..) {
        if *number != expected {
            let name = segment_name(expected);
            return Err(Error::Corrupt(format!("{name} of the log is missing")));
        }
    }
    Ok((numbers, spare_names))
}

fn segment_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

struct ReadSegment {
    segment: RecoveredSegment,
    /// Where the reading ended at something that is not a whole frame.
    broken: Option<String>,
}

fn read_segment(files: &dyn Files, number: u64, sequence: &mut u64) -> Result<ReadSegment, Error> {
    let name = segment_name(number);
    let file = files.open(&name)?;
    let bytes = file.len()?;
    let header = read_at_most(&*file, 0, BLOCK_BYTES, bytes)?;
    let header = SegmentHeader::parse(&header)
        .map_err(|problem| Error::Corrupt(format!("{name} {problem}")))?;
    if header.number != number {
        let found = header.number;
        return Err(Error::Corrupt(format!("{name} is segment {found}")));
    }
    let mut frames = Vec::new();
    let mut position = BLOCK_BYTES as u64;
    let broken = loop {
        let place = || format!("{name} at byte {position}");
        match read_frame(&*file, position, bytes, &header.salt)? {
            Found::Frame(found, frame) if found == *sequence => {
                position += blocks(frame.bytes.len()) as u64;
                *sequence += 1;
                frames.push(frame);
            }
            Found::Frame(found, _) => {
                let place = place();
                // Also what a frame lost at the end of the segment before looks like.
                return Err(Error::Corrupt(format!(
                    "{place} of the log holds frame {found} where frame {sequence} belongs"
                )));
            }
            Found::Nothing => break None,
            Found::Part => break Some(place()),
        }
    };
    if later_frame_exists(&*file, position, bytes, &header.salt)? {
        return Err(Error::Corrupt(format!(
            "{name} of the log is damaged at byte {position}, and whole frames follow: commits \
             that were answered for would be lost"
        )));
    }
    file.sync()?;
    let segment = RecoveredSegment {
        segment: Segment {
            number,
            salt: header.salt,
            filled: bytes,
            file: Arc::clone(&file),
        },
        frames,
        position,
    };
    Ok(ReadSegment { segment, broken })
}

enum Found {
    /// A whole frame and its sequence.
    Frame(u64, Frame),
    /// No header of a frame: the end, or a frame whose first block never arrived.
    Nothing,
    /// A header, and not all that belongs to it.
    Part,
}

fn read_frame(
    file: &dyn DataFile,
    position: u64,
    file_bytes: u64,
    salt: &[u8; 16],
) -> Result<Found, Error> {
    let mut bytes = read_at_most(file, position, BLOCK_BYTES, file_bytes)?;
    let Some(header) = FrameHeader::parse(&bytes, salt) else {
        return Ok(Found::Nothing);
    };
    let payload_bytes = header.payload_bytes as usize;
    let whole = FRAME_HEADER_BYTES + payload_bytes;
    if payload_bytes > PAYLOAD_BYTES_MAX || position + whole as u64 > file_bytes {
        return Ok(Found::Part);
    }
    // Exactly as much memory as the frame needs, because its rows stay there.
    let have = bytes.len().min(whole);
    let mut frame = vec![0; whole];
    frame[..have].copy_from_slice(&bytes[..have]);
    bytes.clear();
    file.read(position + have as u64, &mut frame[have..])?;
    Ok(match Frame::parse(Bytes::from(frame), header) {
        Some(frame) => Found::Frame(header.sequence, frame),
        None => Found::Part,
    })
}

/// Whether any block after the one at `position` begins a frame of this use of the file.
fn later_frame_exists(
    file: &dyn DataFile,
    position: u64,
    file_bytes: u64,
    salt: &[u8; 16],
) -> Result<bool, Error> {
    let mut at = position + BLOCK_BYTES as u64;
    while at < file_bytes {
        let some = read_at_most(file, at, LOOK_BYTES, file_bytes)?;
        let found = some
            .chunks(BLOCK_BYTES)
            .any(|block| FrameHeader::parse(block, salt).is_some());
        if found {
            return Ok(true);
        }
        at += LOOK_BYTES as u64;
    }
    Ok(false)
}

/// Reads up to `bytes` bytes; the end of the file cuts them.
fn read_at_most(
    file: &dyn DataFile,
    offset: u64,
    bytes: usize,
    file_bytes: u64,
) -> Result<Vec<u8>, Error> {
    let there = file_bytes.saturating_sub(offset).min(bytes as u64);
    let mut buffer = vec![0; there as usize];
    match file.read(offset, &mut buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Error::Corrupt(
            "the log became shorter while it was read".into(),
        )),
        other => {
            other?;
            Ok(buffer)
        }
    }
}
