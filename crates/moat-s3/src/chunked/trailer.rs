//! The trailers of an `aws-chunked` body.

use http::HeaderMap;

use super::ChunkedError;

/// The most bytes of trailers, all lines together.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// The most trailers. SDKs send one checksum and a signature.
pub const TRAILER_COUNT_MAX: usize = 100;

/// The names in `x-amz-trailer`, lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnnouncedTrailers(Vec<String>);

impl AnnouncedTrailers {
    /// Reads `x-amz-trailer`: names separated by commas, in one or several headers.
    ///
    /// # Errors
    /// `MalformedTrailer` if it is not text or lists over [`TRAILER_COUNT_MAX`] names.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ChunkedError> {
        let mut names = Vec::new();
        for value in headers.get_all("x-amz-trailer") {
            let text = value
                .to_str()
                .map_err(|_| ChunkedError::MalformedTrailer("x-amz-trailer is not text."))?;
            let listed = text.split(',').map(str::trim).filter(|n| !n.is_empty());
            names.extend(listed.map(str::to_ascii_lowercase));
        }
        if names.len() > TRAILER_COUNT_MAX {
            return Err(ChunkedError::MalformedTrailer(
                "there are too many trailers.",
            ));
        }
        Ok(Self(names))
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Every announced trailer must come, and no other: a trailer that nobody was prepared to
    /// check would be a checksum that is not verified.
    pub(super) fn check(&self, trailers: &Trailers) -> Result<(), ChunkedError> {
        if self.iter().any(|name| trailers.get(name).is_none()) {
            return Err(ChunkedError::MalformedTrailer(
                "an announced trailer is missing.",
            ));
        }
        if trailers
            .iter()
            .any(|(name, _)| !self.0.iter().any(|n| n == name))
        {
            return Err(ChunkedError::MalformedTrailer(
                "a trailer was not announced in x-amz-trailer.",
            ));
        }
        Ok(())
    }
}

/// Trailers in the order of the body; names in lower case. The trailer signature is not among
/// them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trailers(Vec<(String, String)>);

impl Trailers {
    /// The value of a trailer, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value)
    }

    /// All trailers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, name: &str, value: &str) -> Result<(), ChunkedError> {
        if self.0.len() == TRAILER_COUNT_MAX {
            return Err(ChunkedError::MalformedTrailer(
                "there are too many trailers.",
            ));
        }
        let name = name.to_ascii_lowercase();
        if self.get(&name).is_some() {
            return Err(ChunkedError::MalformedTrailer("a trailer stands twice."));
        }
        self.0.push((name, value.to_owned()));
        Ok(())
    }

    /// The form that the trailer signature covers: `name:value` and a line feed each.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self.iter() {
            for part in [name, ":", value, "\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out
    }
}

/// Splits a trailer line into name and value.
pub(super) fn parse_line(line: &[u8]) -> Result<(&str, &str), ChunkedError> {
    const BAD: ChunkedError =
        ChunkedError::MalformedTrailer("a line is not of the form name:value.");
    let text = std::str::from_utf8(line).map_err(|_| BAD)?;
    let (name, value) = text.split_once(':').ok_or(BAD)?;
    let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    if !is_token {
        return Err(BAD);
    }
    Ok((name, value.trim()))
}
