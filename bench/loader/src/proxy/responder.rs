//! A server that does as little as TLS and HTTP/1.1 allow, so that what is measured is what stands
//! in front of it.
//!
//! One thread. It understands the requests that proxies make of the loader's, and no others: a
//! length or chunks, no pipelining.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::RespondArgs;
use crate::answer::{end_of_head, header};

/// Large answers are written in pieces of this size, as a store that streams does.
const PIECE_BYTES: usize = 256 << 10;
/// A head, and what one read brings of a body.
const BUFFER_BYTES: usize = 256 << 10;
/// Answers up to this travel in the same write as their head.
const JOINED_BYTES_MAX: usize = 16 << 10;
/// The end of a chunked body. The loader's bodies don't contain it.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

static PIECE: [u8; PIECE_BYTES] = [b'm'; PIECE_BYTES];

/// Listens and answers for as long as the process lives.
///
/// # Errors
/// If it can't begin.
pub(crate) async fn respond(args: RespondArgs) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(&args)?));
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listening on {}", args.listen))?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        let acceptor = acceptor.clone();
        // Connections end when the proxy has had enough of them; that is no failure of a run.
        tokio::spawn(async move { drop(serve(stream, &acceptor).await) });
    }
}

fn tls_config(args: &RespondArgs) -> Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&args.certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("reading {}", args.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&args.key)
        .with_context(|| format!("reading {}", args.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate")
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        let got = stream.read(&mut buffer[filled..]).await?;
        if got == 0 {
            return Ok(());
        }
        filled += got;
        if let Some(head) = end_of_head(&buffer[..filled]) {
            answer(&mut stream, &mut buffer, head, filled).await?;
            filled = 0;
        } else if filled == buffer.len() {
            bail!("a head of {BUFFER_BYTES} bytes");
        }
    }
}

/// Reads the rest of a request and answers it.
async fn answer(
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut [u8],
    head: usize,
    filled: usize,
) -> Result<()> {
    let (bytes, body) = {
        let head = &buffer[..head];
        let length = header(head, "content-length").map(str::parse::<u64>);
        let body = match length.transpose().context("a length")? {
            Some(length) => Rest::Length(length),
            None if header(head, "transfer-encoding").is_some() => Rest::Chunks,
            None => Rest::Length(0),
        };
        (wanted_bytes(head), body)
    };
    match body {
        Rest::Length(length) => {
            let mut left = length.saturating_sub((filled - head) as u64);
            while left > 0 {
                let got = stream.read(buffer).await?;
                if got == 0 {
                    bail!("the upload was cut");
                }
                left = left.saturating_sub(got as u64);
            }
        }
        Rest::Chunks => {
            let mut tail = buffer[head..filled].to_vec();
            while !tail.ends_with(LAST_CHUNK) {
                let got = stream.read(buffer).await?;
                if got == 0 {
                    bail!("the upload was cut");
                }
                tail.extend_from_slice(&buffer[got.saturating_sub(LAST_CHUNK.len())..got]);
                let surplus = tail.len().saturating_sub(LAST_CHUNK.len());
                tail.drain(..surplus);
            }
        }
    }
    send(stream, bytes).await
}

enum Rest {
    Length(u64),
    Chunks,
}

/// The number that the path is; anything else, as a health check, wants nothing.
fn wanted_bytes(head: &[u8]) -> u64 {
    let mut words = head.split(|byte| *byte == b' ');
    let path = words.nth(1).and_then(|path| std::str::from_utf8(path).ok());
    path.and_then(|path| path.strip_prefix('/')?.parse().ok())
        .unwrap_or(0)
}

async fn send(stream: &mut TlsStream<TcpStream>, bytes: u64) -> Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: binary/octet-stream\r\nx-amz-request-id: 1A2B3C4D5E6F7081\r\n\
         etag: \"9a0364b9e99bb480dd25e1f0284c8555\"\r\ncontent-length: {bytes}\r\n\r\n"
    );
    let mut out = head.into_bytes();
    let mut left = bytes;
    if bytes <= JOINED_BYTES_MAX as u64 {
        out.extend_from_slice(&PIECE[..usize::try_from(bytes)?]);
        left = 0;
    }
    stream.write_all(&out).await?;
    while left > 0 {
        let piece = usize::try_from(left.min(PIECE_BYTES as u64))?;
        stream.write_all(&PIECE[..piece]).await?;
        left -= piece as u64;
    }
    stream.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_sizes_and_all_else_wants_nothing() {
        for (head, bytes) in [
            ("GET /4096 HTTP/1.1\r\n\r\n", 4096),
            ("GET /minio/health/ready HTTP/1.1\r\n\r\n", 0),
            ("PUT / HTTP/1.1\r\n\r\n", 0),
            ("", 0),
        ] {
            assert_eq!(wanted_bytes(head.as_bytes()), bytes, "{head}");
        }
    }
}
