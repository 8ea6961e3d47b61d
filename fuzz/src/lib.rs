//! What the fuzz targets share: requests written as text, and sources of time and randomness that
//! always give the same.
//!
//! A target gives a parser any bytes. It must not panic, and where parsing promises more (what is
//! written reads back, splits do not matter, a changed byte is noticed), the target asserts it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use moat_types::{Random, SecretString, UnixMillis};

/// The secret that the requests of the corpus are signed with.
pub const SECRET: &str = "secret";

/// When they are signed: 2013-05-24, as in the examples of AWS.
pub const NOW: UnixMillis = UnixMillis(1_369_353_600_000);

/// [`SECRET`], typed.
pub fn secret() -> SecretString {
    SecretString::new(SECRET.to_owned())
}

/// A request without its body.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
}

impl Request {
    /// Reads `METHOD target`, then lines `name: value`. Values may hold any byte that HTTP lets
    /// through, as behind hyper. `None` for what hyper would refuse.
    pub fn parse(input: &[u8]) -> Option<Self> {
        let mut lines = input.split(|b| *b == b'\n');
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let (method, target) = first.split_once(' ')?;
        let mut headers = HeaderMap::new();
        for line in lines.take(100) {
            let colon = line.iter().position(|b| *b == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            headers.append(name, value);
        }
        Some(Self {
            method: method.parse().ok()?,
            uri: target.parse().ok()?,
            headers,
        })
    }
}

/// Random bytes that are not: every run of a target does the same.
#[derive(Debug)]
pub struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}
