//! Commands on the wire: what bodies of requests and answers are made of.
//!
//! ```text
//! offset  0  command code, u16 big-endian
//!         2  length N of the message, u32 big-endian
//!         6  N bytes of protobuf; none at all is a message of defaults
//! ```
//!
//! A body holds one frame after the other and nothing else. An answer holds a frame with the same
//! code for each frame of its request, in the same order.

use super::proto::Writer;

const HEADER_BYTES: usize = 6;

/// Frames of one request: as many data keys as a batch may ask for. With keys of the greatest
/// length the answer has 9 MiB.
pub(crate) const FRAMES_MAX: usize = 4096;

/// Why a body is not a sequence of frames. The message may be shown to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// No frame at all. A client of this protocol that tries again at another server after its
    /// connection broke sends its request without the body: it must not take that for success.
    #[error("the request holds no command")]
    Empty,
    /// A frame ends behind the end of the body.
    #[error("a command of the request is cut off")]
    CutOff,
    /// More than [`FRAMES_MAX`].
    #[error("a request may hold at most {FRAMES_MAX} commands")]
    TooMany,
}

/// One command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) code: u16,
    pub(crate) message: &'a [u8],
}

/// Takes a body apart; at least one frame.
pub(crate) fn parse(mut body: &[u8]) -> Result<Vec<Frame<'_>>, FrameError> {
    let mut frames = Vec::with_capacity(1);
    while !body.is_empty() {
        if frames.len() == FRAMES_MAX {
            return Err(FrameError::TooMany);
        }
        let (frame, rest) = split(body).ok_or(FrameError::CutOff)?;
        frames.push(frame);
        body = rest;
    }
    if frames.is_empty() {
        return Err(FrameError::Empty);
    }
    Ok(frames)
}

fn split(body: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (code, rest) = body.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (message, rest) = rest.split_at_checked(length)?;
    let code = u16::from_be_bytes(*code);
    Some((Frame { code, message }, rest))
}

/// Appends a frame whose message `write` writes.
pub(crate) fn push(out: &mut Writer, code: u16, write: impl FnOnce(&mut Writer)) {
    let start = out.len();
    out.raw(&code.to_be_bytes());
    out.raw(&[0; HEADER_BYTES - 2]);
    write(out);
    let length = out.len() - start - HEADER_BYTES;
    let length = u32::try_from(length).expect("answers are far below 4 GiB");
    out.patch(start + 2, &length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_frames_back_to_back() {
        let body = hex::decode("00d000000000 00cf00000002 2020 00d000000000".replace(' ', ""));
        let body = body.unwrap();
        let frames = parse(&body).unwrap();
        let expected = [(208, &b""[..]), (207, b"  "), (208, b"")];
        let expected = expected.map(|(code, message)| Frame { code, message });
        assert_eq!(frames, expected);

        let mut out = Writer::default();
        for frame in frames {
            push(&mut out, frame.code, |out| out.raw(frame.message));
        }
        assert_eq!(out.as_slice(), body);
    }

    #[test]
    fn what_is_cut_off_or_empty_or_endless_is_refused() {
        assert_eq!(parse(b""), Err(FrameError::Empty));
        let whole = [0, 207, 0, 0, 0, 2, 1, 2];
        for cut in 1..whole.len() {
            assert_eq!(parse(&whole[..cut]), Err(FrameError::CutOff), "{cut}");
        }
        let longer_than_the_body = [0, 207, 0xff, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(parse(&longer_than_the_body), Err(FrameError::CutOff));
        let frame = [0, 208, 0, 0, 0, 0];
        assert!(parse(&frame.repeat(FRAMES_MAX)).is_ok());
        assert_eq!(
            parse(&frame.repeat(FRAMES_MAX + 1)),
            Err(FrameError::TooMany)
        );
    }
}
