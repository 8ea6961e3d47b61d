//! One kept connection: TLS 1.3 over TCP (or TCP alone), one request at a time, answers read into one buffer.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::{self, Framing, Head};

/// Read at a time. Bigger than what a server sends in one go, so that a small answer is one read.
const BUFFER_BYTES: usize = 256 << 10;
/// Bodies up to this travel in the same write as the head: one record and one packet.
const JOINED_BYTES_MAX: usize = 16 << 10;
/// Kept of an answer that must be understood. Ten times what a page of 1,000 keys takes.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// Which part of an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// Only how long the body was.
    Count,
    /// Head and body.
    All,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    /// Filled with `Keep::All`, and always when the status is an error.
    pub(crate) head: Vec<u8>,
    /// As `head`.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Stream for T {}

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// What of the buffer has come and is not used yet.
    start: usize,
    end: usize,
    joined: Vec<u8>,
}

impl Connection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// If nobody listens, or the certificate is not the CA's.
    pub(crate) async fn open(
        address: std::net::SocketAddr,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Self> {
        let tcp = connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .with_context(|| format!("TLS handshake with {address}"))?;
        Ok(Self::of(Box::new(stream)))
    }

    /// Connects without TLS.
    ///
    /// # Errors
    /// If nobody listens.
    pub(crate) async fn open_plain(address: std::net::SocketAddr) -> Result<Self> {
        Ok(Self::of(Box::new(connect(address).await?)))
    }

    fn of(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            joined: Vec::new(),
        }
    }

    /// Sends one request and reads its answer to the end.
    ///
    /// # Errors
    /// If the connection breaks, or the answer is not understood. It can't be used any more then.
    pub(crate) async fn exchange(
        &mut self,
        head: &[u8],
        body: &[u8],
        keep: Keep,
    ) -> Result<Answer> {
        self.send(head, body).await.context("sending a request")?;
        self.receive(head.starts_with(b"HEAD "), keep)
            .await
            .context("reading an answer")
    }

    async fn send(&mut self, head: &[u8], body: &[u8]) -> Result<()> {
        if body.len() <= JOINED_BYTES_MAX {
            self.joined.clear();
            self.joined.extend_from_slice(head);
            self.joined.extend_from_slice(body);
            self.stream.write_all(&self.joined).await?;
        } else {
            self.stream.write_all(head).await?;
            self.stream.write_all(body).await?;
        }
        self.stream.flush().await?;
        Ok(())
    }

    async fn receive(&mut self, to_head: bool, keep: Keep) -> Result<Answer> {
        let (head, head_bytes) = self.read_head(to_head).await?;
        let kept = keep == Keep::All || head.status >= 300;
        let mut answer = Answer {
            status: head.status,
            body_bytes: 0,
            head: if kept {
                self.unread()[..head_bytes].to_vec()
            } else {
                Vec::new()
            },
            body: Vec::new(),
        };
        self.start += head_bytes;
        let sink = if kept { Some(&mut answer.body) } else { None };
        answer.body_bytes = match head.framing {
            Framing::Length(length) => self.read_exactly(length, sink).await?,
            Framing::Chunked => self.read_chunks(sink).await?,
        };
        ensure!(!head.close || kept, "the server closes the connection");
        Ok(answer)
    }

    async fn read_head(&mut self, to_head: bool) -> Result<(Head, usize)> {
        loop {
            if let Some(length) = answer::end_of_head(self.unread()) {
                return Ok((answer::parse(&self.unread()[..length], to_head)?, length));
            }
            self.read_more().await?;
        }
    }

    async fn read_exactly(&mut self, length: u64, mut sink: Option<&mut Vec<u8>>) -> Result<u64> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.read_more().await?;
            }
            let here = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.end - self.start);
            if let Some(sink) = &mut sink {
                ensure!(
                    sink.len() + here <= KEPT_BYTES_MAX,
                    "the answer is longer than {KEPT_BYTES_MAX} bytes"
                );
                sink.extend_from_slice(&self.buffer[self.start..self.start + here]);
            }
            self.start += here;
            left -= here as u64;
        }
        Ok(length)
    }

    async fn read_chunks(&mut self, mut sink: Option<&mut Vec<u8>>) -> Result<u64> {
        let mut total = 0;
        loop {
            let size = answer::chunk_size(&self.read_line().await?)?;
            if size == 0 {
                // Trailers, up to the empty line.
                while !self.read_line().await?.is_empty() {}
                return Ok(total);
            }
            total += self.read_exactly(size, sink.as_deref_mut()).await?;
            ensure!(
                self.read_line().await?.is_empty(),
                "a chunk is longer than it says"
            );
        }
    }

    async fn read_line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread().windows(2).position(|two| two == b"\r\n") {
                let line = self.unread()[..at].to_vec();
                self.start += at + 2;
                return Ok(line);
            }
            self.read_more().await?;
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            ensure!(self.start > 0, "a head or line of {BUFFER_BYTES} bytes");
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let got = self.stream.read(&mut self.buffer[self.end..]).await?;
        if got == 0 {
            bail!("the server closed the connection");
        }
        self.end += got;
        Ok(())
    }
}

async fn connect(address: std::net::SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    tcp.set_nodelay(true).context("setting TCP_NODELAY")?;
    Ok(tcp)
}
