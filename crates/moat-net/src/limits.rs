//! Every limit of a listener, with the reason for its default.

use std::time::Duration;

/// Connections that one listener serves at once. At some 20 KiB for an idle TLS connection this is
/// 200 MiB; S3A opens up to a few hundred per executor.
pub const CONNECTIONS_MAX: usize = 10_000;
/// A TLS handshake is two round trips; this leaves room for lost packets on slow links.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From the first byte of a request head to its last. A head fits in a few packets.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// A kept-alive connection without a request. Longer than the 60 s after which the AWS SDKs drop
/// theirs, so that the client closes first and never sends into a connection we just closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// A response that the peer takes nothing of. S3A readers pause for minutes between reads while
/// a task computes.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// All of a request head in bytes. S3 itself stops at 8 KiB of headers, but a `Referer` of S3A and a
/// presigned URL with a session token can be several KiB each.
pub const HEADER_BYTES_MAX: usize = 128 * 1024;
/// Headers of one request. SDKs send about 20, so this leaves room for 80 entries of user metadata in
/// the 2 KiB that S3 allows. It is what hyper has room for on the stack; for more it allocates and
/// fills two arrays for each request, which cost as much as parsing it.
pub const HEADERS_MAX: usize = 100;
/// Requests at once on one HTTP/2 connection; the value that RFC 9113 section 6.5.2 calls the least
/// that does not limit parallelism needlessly, and some more.
pub const STREAMS_MAX: u32 = 128;

/// What a listener allows its peers. Passing a limit ends in an answer or a closed connection,
/// never in a hang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; the next ones are closed as they come, and counted.
    pub connections_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request head may take from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of a response that has bytes to send.
    pub write_stall_timeout: Duration,
    /// Bytes of a request head; beyond it the answer is 431. At least 8 KiB.
    pub header_bytes_max: usize,
    /// Headers of a request; beyond it the answer is 431.
    pub headers_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_stall_timeout: WRITE_STALL_TIMEOUT,
            header_bytes_max: HEADER_BYTES_MAX,
            headers_max: HEADERS_MAX,
            streams_max: STREAMS_MAX,
        }
    }
}
