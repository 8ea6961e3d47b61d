//! Connections that stop being HTTP: `Upgrade` and 101 (RFC 9110 section 7.8).
//!
//! [`HttpClient`](crate::HttpClient) puts the upstream's side of such a connection into its answer's
//! extensions as an [`Offer`]. A [`Service`](crate::Service) that answers 101 with the offer in its own
//! extensions has the listener join both sides. What flows then is nobody's business any more; the
//! connection still counts for the listener, and ends with either side or at the drain's deadline.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};

use crate::client::Stream;

/// What is read at a time in either direction. Messages of such protocols are small.
const BUFFER_BYTES: usize = 16 * 1024;

/// One side of a tunnel, to be taken once.
#[derive(Clone)]
pub struct Offer(Arc<Mutex<Option<Tunnel>>>);

/// A connection after its 101.
pub(crate) struct Tunnel {
    stream: Box<dyn Stream>,
    /// What came behind the head of the answer.
    read_already: Bytes,
    held: Option<Box<dyn Any + Send>>,
}

impl Offer {
    pub(crate) fn new(stream: Box<dyn Stream>, read_already: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Some(Tunnel {
            stream,
            read_already,
            held: None,
        }))))
    }

    /// Keeps a value until the tunnel has ended: whatever counts it.
    #[must_use]
    pub fn holding(self, value: impl Any + Send) -> Self {
        if let Some(tunnel) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            tunnel.held = Some(Box::new(value));
        }
        self
    }

    pub(crate) fn take(&self) -> Option<Tunnel> {
        let mut offer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offer.take()
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offer")
    }
}

impl Tunnel {
    /// Hands bytes over until both sides have ended or one has failed.
    pub(crate) async fn join(mut self, client: Upgraded) {
        let mut client = TokioIo::new(client);
        if client.write_all(&self.read_already).await.is_err() {
            return;
        }
        let sizes = (BUFFER_BYTES, BUFFER_BYTES);
        let ended =
            copy_bidirectional_with_sizes(&mut client, &mut self.stream, sizes.0, sizes.1).await;
        if let Err(error) = ended {
            tracing::debug!(%error, "tunnel ended");
        }
        drop(self.held);
    }
}
