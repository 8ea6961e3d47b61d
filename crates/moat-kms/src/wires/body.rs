//! Reading a request's body: whole, bounded in size and time, and in what one identity may have
//! under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use moat_kms_client::Identity;
use moat_net::Body;

/// A request fits into some packets; a client that takes longer is stuck.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of requests that one identity may have under way at once, unless told otherwise: sixteen of
/// the largest batches.
pub const BODIES_BYTES_MAX: usize = 64 << 20;
/// Bodies up to this size are not counted: the limit on connections bounds them, and almost every
/// request is one.
const SMALL_BODY_BYTES: usize = 64 << 10;

/// Why a body could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BodyError {
    /// It is longer than the request may have.
    TooLarge,
    /// The identity has too much under way. It may ask again when that is answered.
    Busy,
    /// It broke off.
    Broken,
    /// It did not come in time.
    Timeout,
}

/// The large bodies that are under way, by identity.
#[derive(Debug)]
pub(crate) struct Bodies {
    bytes_max: AtomicUsize,
    under_way: Arc<Mutex<HashMap<Identity, usize>>>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            bytes_max: AtomicUsize::new(BODIES_BYTES_MAX),
            under_way: Arc::default(),
        }
    }
}

impl Bodies {
    /// Sets how many bytes one identity may have under way.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Reads a body of at most `bytes_max`. What is large counts as under way until the last part
    /// of it is dropped.
    pub(crate) async fn read(
        &self,
        identity: &Identity,
        body: Body,
        bytes_max: usize,
    ) -> Result<Bytes, BodyError> {
        let bytes_max = bytes_max.min(self.bytes_max.load(Ordering::Relaxed));
        if http_body::Body::size_hint(&body).lower() > bytes_max as u64 {
            return Err(BodyError::TooLarge);
        }
        let read = self.collect(identity, body, bytes_max);
        match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Ok(read) => read,
            Err(_) => Err(BodyError::Timeout),
        }
    }

    async fn collect(
        &self,
        identity: &Identity,
        mut body: Body,
        bytes_max: usize,
    ) -> Result<Bytes, BodyError> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        let mut share = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| BodyError::Broken)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len() + all.len() + data.len();
            if length > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if length > SMALL_BODY_BYTES {
                let share = share.get_or_insert_with(|| self.share(identity));
                share.grow_to(length, self.bytes_max.load(Ordering::Relaxed))?;
            }
            // Almost every body is one frame, which is not copied.
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
        let whole = if all.is_empty() { first } else { all.freeze() };
        Ok(match share {
            None => whole,
            Some(share) => Bytes::from_owner(Held {
                whole,
                _share: share,
            }),
        })
    }

    fn share(&self, identity: &Identity) -> Share {
        Share {
            identity: *identity,
            bytes: 0,
            under_way: Arc::clone(&self.under_way),
        }
    }
}

/// A body, and what it counts for.
struct Held {
    whole: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.whole
    }
}

/// What one body counts for. Given back when it is dropped.
struct Share {
    identity: Identity,
    bytes: usize,
    under_way: Arc<Mutex<HashMap<Identity, usize>>>,
}

impl Share {
    fn grow_to(&mut self, bytes: usize, bytes_max: usize) -> Result<(), BodyError> {
        let more = bytes - self.bytes;
        let mut all = lock(&self.under_way);
        let sum = all.get(&self.identity).copied().unwrap_or_default();
        if sum + more > bytes_max {
            return Err(BodyError::Busy);
        }
        all.insert(self.identity, sum + more);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = lock(&self.under_way);
        if let Some(sum) = all.get_mut(&self.identity) {
            *sum -= self.bytes;
            if *sum == 0 {
                all.remove(&self.identity);
            }
        }
    }
}

fn lock(under_way: &Mutex<HashMap<Identity, usize>>) -> MutexGuard<'_, HashMap<Identity, usize>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_a_bounded_share_and_gets_it_back() {
        let bodies = Bodies::default();
        let (one, other) = (
            Identity::from_spki_sha256([1; 32]),
            Identity::from_spki_sha256([2; 32]),
        );
        let mut first = bodies.share(&one);
        first.grow_to(60, 100).unwrap();
        first.grow_to(80, 100).unwrap();
        let mut second = bodies.share(&one);
        assert_eq!(second.grow_to(30, 100), Err(BodyError::Busy));
        let mut foreign = bodies.share(&other);
        foreign.grow_to(100, 100).unwrap();
        let held = Bytes::from_owner(Held {
            whole: Bytes::from_static(b"body"),
            _share: first,
        });
        let part = held.slice(1..2);
        drop(held);
        assert_eq!(
            second.grow_to(30, 100),
            Err(BodyError::Busy),
            "a part is left"
        );
        drop(part);
        second.grow_to(30, 100).unwrap();
        drop((second, foreign));
        assert!(lock(&bodies.under_way).is_empty());
    }
}
