//! The HSM keys that a process has. Which of them seals is written in the state, not here: it is
//! the one that sealed the system's row, so that all nodes follow a rotation at once.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use moat_types::{Random, SecretBytes};

use super::{HSM_ID_BYTES, Hsm, HsmError};

/// A device that takes longer is stuck; what needs it fails, the rest goes on.
const DEVICE_TIME_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Hsms {
    /// The first is the one that a new state is sealed under.
    known: RwLock<Vec<Arc<dyn Hsm>>>,
    random: Arc<dyn Random>,
}

impl Hsms {
    pub(crate) fn new(
        first: Box<dyn Hsm>,
        older: Vec<Box<dyn Hsm>>,
        random: Arc<dyn Random>,
    ) -> Self {
        let known = std::iter::once(first).chain(older).map(Arc::from).collect();
        Self {
            known: RwLock::new(known),
            random,
        }
    }

    /// The key that a new state is sealed under.
    pub(crate) fn first(&self) -> Arc<dyn Hsm> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.first().expect("there is one from the beginning"))
    }

    /// All keys, the first one first.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Hsm>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    /// Puts a key in the first place; the others stay, to open what they sealed.
    pub(crate) fn add(&self, hsm: Arc<dyn Hsm>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.id() != hsm.id());
        known.insert(0, hsm);
    }

    /// Seals and opens something, to see whether a key works before anything depends on it.
    pub(crate) async fn probe(&self, hsm: Arc<dyn Hsm>) -> Result<(), HsmError> {
        const PROBE: &[u8] = b"moat hsm probe";
        let random = Arc::clone(&self.random);
        blocking(&hsm.describe(), move || {
            let sealed = hsm.seal(PROBE, PROBE, &*random)?;
            match hsm.open(PROBE, &sealed)?.expose() == PROBE {
                true => Ok(()),
                false => Err(HsmError::Sealed),
            }
        })
        .await
    }

    fn find(&self, id: &[u8]) -> Result<Arc<dyn Hsm>, HsmError> {
        let all = self.all();
        let found = all.into_iter().find(|hsm| hsm.id() == id);
        found.ok_or_else(|| HsmError::Unknown {
            id: hex::encode(id),
        })
    }

    /// Seals under the key with `id`: its id, then its sealed form.
    pub(crate) async fn seal(
        &self,
        id: [u8; HSM_ID_BYTES],
        context: &[u8],
        plaintext: SecretBytes,
    ) -> Result<Vec<u8>, HsmError> {
        let (hsm, random, context) = (self.find(&id)?, Arc::clone(&self.random), context.to_vec());
        let sealed = blocking(&hsm.describe(), move || {
            hsm.seal(&context, plaintext.expose(), &*random)
        })
        .await?;
        Ok([id.as_slice(), &sealed].concat())
    }

    /// Opens what `seal` gave.
    pub(crate) async fn open(&self, context: &[u8], value: &[u8]) -> Result<SecretBytes, HsmError> {
        let (id, sealed) = value
            .split_first_chunk::<HSM_ID_BYTES>()
            .ok_or(HsmError::Sealed)?;
        let hsm = self.find(id)?;
        let (context, sealed) = (context.to_vec(), sealed.to_vec());
        blocking(&hsm.describe(), move || hsm.open(&context, &sealed)).await
    }
}

/// Runs what may wait for a device where waiting holds nobody up.
async fn blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, HsmError> + Send + 'static,
) -> Result<T, HsmError> {
    let failed = |reason: &str| HsmError::Token {
        token: name.to_owned(),
        reason: reason.to_owned(),
    };
    match tokio::time::timeout(DEVICE_TIME_MAX, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(failed("its driver crashed")),
        Err(_) => Err(failed("it does not answer")),
    }
}
