//! The PROXY protocol, versions 1 and 2: a header before a connection's first byte that says whose
//! connection it is. Format: HAProxy's `proxy-protocol.txt`, sections 2.1 and 2.2.
//!
//! Version 1 is a line of text, `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n`, of at most 107 bytes.
//! Version 2 is binary:
//!
//! ```text
//!  0  12  signature  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//! 12   1  version 2 in the upper half, command in the lower: 0 LOCAL, 1 PROXY
//! 13   1  family in the upper half (1 IPv4, 2 IPv6), transport in the lower (1 stream)
//! 14   2  length of what follows, big-endian
//! 16   n  addresses (source, destination), ports (the same), then TLVs, which are skipped
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
/// The longest line of version 1, with its end.
const V1_BYTES_MAX: usize = 107;
/// The longest header that is read. Addresses take 36 bytes; the rest are TLVs, of which those of cloud
/// balancers and certificates are some hundred bytes.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source and destination of the connection that is forwarded; `None`: the sender speaks for itself,
    /// as it does for health checks.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Bytes that the header takes.
    pub bytes: usize,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It may become one.
    #[error("the PROXY header is not complete")]
    Incomplete,
    /// It can't.
    #[error("the connection does not begin with a PROXY header")]
    NotOne,
    /// It is one, but not well formed.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// It is longer than [`HEADER_BYTES_MAX`].
    #[error("the PROXY header is too long")]
    TooLong,
}

/// Reads the header that `bytes` begin with.
///
/// # Errors
/// [`ParseError::Incomplete`] if more bytes may make it one; the others are final.
pub fn parse(bytes: &[u8]) -> Result<Header, ParseError> {
    let common = |expected: &[u8]| {
        let length = bytes.len().min(expected.len());
        bytes[..length] == expected[..length]
    };
    if common(&V2_SIGNATURE) {
        parse_v2(bytes)
    } else if common(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(ParseError::NotOne)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Header, ParseError> {
    let end = bytes
        .windows(2)
        .take(V1_BYTES_MAX - 1)
        .position(|pair| pair == b"\r\n");
    let Some(end) = end else {
        return Err(if bytes.len() >= V1_BYTES_MAX {
            ParseError::TooLong
        } else {
            ParseError::Incomplete
        });
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| ParseError::Malformed)?;
    Ok(Header {
        addresses: v1_addresses(line)?,
        bytes: end + 2,
    })
}

fn v1_addresses(line: &str) -> Result<Option<(SocketAddr, SocketAddr)>, ParseError> {
    let mut words = line.split(' ').skip(1);
    let mut next = || words.next().ok_or(ParseError::Malformed);
    let ipv4 = match next()? {
        "TCP4" => true,
        "TCP6" => false,
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Ok(None),
        _ => return Err(ParseError::Malformed),
    };
    let (source, destination) = (v1_ip(next()?, ipv4)?, v1_ip(next()?, ipv4)?);
    let (from, to) = (v1_port(next()?)?, v1_port(next()?)?);
    if words.next().is_some() {
        return Err(ParseError::Malformed);
    }
    Ok(Some((
        SocketAddr::new(source, from),
        SocketAddr::new(destination, to),
    )))
}

fn v1_ip(text: &str, ipv4: bool) -> Result<IpAddr, ParseError> {
    let ip: IpAddr = text.parse().map_err(|_| ParseError::Malformed)?;
    (ip.is_ipv4() == ipv4)
        .then_some(ip)
        .ok_or(ParseError::Malformed)
}

/// Digits only, without a leading zero: `u16::from_str` would take a sign.
fn v1_port(text: &str) -> Result<u16, ParseError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(ParseError::Malformed);
    }
    text.parse().map_err(|_| ParseError::Malformed)
}

fn parse_v2(bytes: &[u8]) -> Result<Header, ParseError> {
    let head = bytes.get(..V2_HEAD_BYTES).ok_or(ParseError::Incomplete)?;
    let (version_and_command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let total = V2_HEAD_BYTES + length;
    if total > HEADER_BYTES_MAX {
        return Err(ParseError::TooLong);
    }
    let rest = bytes
        .get(V2_HEAD_BYTES..total)
        .ok_or(ParseError::Incomplete)?;
    let addresses = match (version_and_command, family) {
        (0x20, _) => None,
        (0x21, 0x11) => Some(v2_addresses::<4>(rest, |ip| Ipv4Addr::from(ip).into())?),
        (0x21, 0x21) => Some(v2_addresses::<16>(rest, |ip| Ipv6Addr::from(ip).into())?),
        // Forwarded, but over something that has no such addresses: to be taken as the sender's own.
        (0x21, _) => None,
        _ => return Err(ParseError::Malformed),
    };
    Ok(Header {
        addresses,
        bytes: total,
    })
}

fn v2_addresses<const N: usize>(
    rest: &[u8],
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Result<(SocketAddr, SocketAddr), ParseError> {
    let field = |at: usize, length: usize| rest.get(at..at + length).ok_or(ParseError::Malformed);
    let address = |at| Ok(ip(field(at, N)?.try_into().expect("a slice of N bytes")));
    let port = |at| {
        Ok(u16::from_be_bytes(
            field(at, 2)?.try_into().expect("a slice of two bytes"),
        ))
    };
    Ok((
        SocketAddr::new(address(0)?, port(2 * N)?),
        SocketAddr::new(address(N)?, port(2 * N + 2)?),
    ))
}

/// A header of version 1. Without addresses, one that speaks for the sender itself.
pub fn encode_v1(addresses: Option<(SocketAddr, SocketAddr)>) -> Bytes {
    let Some((source, destination)) = addresses.map(of_one_family) else {
        return Bytes::from_static(b"PROXY UNKNOWN\r\n");
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    line.into()
}

/// A header of version 2. Without addresses, one that speaks for the sender itself.
pub fn encode_v2(addresses: Option<(SocketAddr, SocketAddr)>) -> Bytes {
    let mut header = BytesMut::with_capacity(V2_HEAD_BYTES + 36);
    header.put_slice(&V2_SIGNATURE);
    let Some((source, destination)) = addresses.map(of_one_family) else {
        header.put_slice(&[0x20, 0, 0, 0]);
        return header.freeze();
    };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.put_slice(&[0x21, 0x11, 0, 12]);
            header.put_slice(&from.octets());
            header.put_slice(&to.octets());
        }
        (from, to) => {
            header.put_slice(&[0x21, 0x21, 0, 36]);
            header.put_slice(&v6(from).octets());
            header.put_slice(&v6(to).octets());
        }
    }
    header.put_u16(source.port());
    header.put_u16(destination.port());
    header.freeze()
}

/// IPv4 where both are, else IPv6; a header has one family for both.
fn of_one_family((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (plain(source), plain(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| SocketAddr::new(v6(address.ip()).into(), address.port());
    (mapped(source), mapped(destination))
}

const fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: &str, destination: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn what_is_written_reads_back_and_every_shorter_piece_is_incomplete() {
        for addresses in [
            None,
            pair("192.0.2.1:56324", "198.51.100.2:443"),
            pair("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ] {
            for header in [encode_v1(addresses), encode_v2(addresses)] {
                let mut bytes = header.to_vec();
                bytes.extend_from_slice(b"GET / HTTP/1.1");
                let expected = Header {
                    addresses,
                    bytes: header.len(),
                };
                assert_eq!(parse(&bytes), Ok(expected));
                for length in 0..header.len() {
                    assert_eq!(
                        parse(&bytes[..length]),
                        Err(ParseError::Incomplete),
                        "{length}"
                    );
                }
            }
        }
    }

    #[test]
    fn families_are_brought_together() {
        let mixed = pair("[::ffff:192.0.2.1]:5", "198.51.100.2:443");
        assert_eq!(
            encode_v1(mixed),
            "PROXY TCP4 192.0.2.1 198.51.100.2 5 443\r\n"
        );
        let mixed = pair("[2001:db8::1]:5", "198.51.100.2:443");
        assert_eq!(
            encode_v1(mixed),
            "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 5 443\r\n"
        );
    }

    #[test]
    fn tlvs_are_skipped() {
        let mut header = encode_v2(pair("192.0.2.1:1", "192.0.2.2:2")).to_vec();
        header.extend_from_slice(&[0x04, 0, 2, 9, 9]);
        header[15] += 5;
        assert_eq!(parse(&header).unwrap().bytes, header.len());
    }

    #[test]
    fn other_bytes_are_refused() {
        for (bytes, error) in [
            (&b"GET / HTTP/1.1\r\n"[..], ParseError::NotOne),
            (b"\x16\x03\x01", ParseError::NotOne),
            (b"PROXX", ParseError::NotOne),
            (b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n", ParseError::Malformed),
            (
                b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
                ParseError::Malformed,
            ),
            (b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n", ParseError::Malformed),
            (
                b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
                ParseError::Malformed,
            ),
            (
                b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
                ParseError::Malformed,
            ),
            (
                b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
                ParseError::Malformed,
            ),
            (b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", ParseError::Malformed),
            (b"PROXY \xff\r\n", ParseError::Malformed),
            (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", ParseError::Malformed),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
                ParseError::Malformed,
            ),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", ParseError::TooLong),
        ] {
            assert_eq!(parse(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        let long = [&b"PROXY TCP6 "[..], &[b' '; 200]].concat();
        assert_eq!(parse(&long), Err(ParseError::TooLong));
    }
}
