//! Sealing the state under another HSM key while it is in use.
//!
//! What the HSM key seals is one small row per enclave, so a rotation rewrites those and nothing
//! else. The system's row goes first: it names the key under which new enclaves are sealed, on
//! every node. A rotation that was cut off leaves rows under both keys, and is finished by the
//! next one.

use std::collections::BTreeMap;

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Write, prefix_end};

use super::State;
use super::enclaves::EnclaveError;
use crate::backup::{self, BackupError, BackupInfo};
use crate::hsm::{HSM_ID_BYTES, HsmError};
use crate::rows::{Scope, enclave_row};

/// Rows that are sealed anew between two looks at the engine.
const PAGE_ROWS: usize = 100;
const PAGE_BYTES: usize = 1 << 20;

/// How many enclave rows each HSM key has sealed, by the key's id, and which one seals.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sealed {
    pub(crate) rows: BTreeMap<[u8; HSM_ID_BYTES], u64>,
    pub(crate) current: [u8; HSM_ID_BYTES],
}

impl<M: MetaStore> State<M> {
    /// Which HSM keys the rows are sealed under.
    pub(crate) async fn sealed_under(&self) -> Result<Sealed, EnclaveError> {
        let mut sealed = Sealed {
            current: self.sealing_hsm().await?.0,
            ..Sealed::default()
        };
        let mut from = first();
        loop {
            let page = self.store.scan(from..end(), PAGE_ROWS, PAGE_BYTES).await?;
            for (_, value) in page.rows() {
                let id = value.first_chunk().ok_or(EnclaveError::Damaged)?;
                *sealed.rows.entry(*id).or_default() += 1;
            }
            match page.len().checked_sub(1) {
                Some(last) => from = Bytes::from([page.row(last).0, &[0]].concat()),
                None => return Ok(sealed),
            }
        }
    }

    /// The whole state, as a backup.
    pub(crate) async fn backup(&self) -> Result<(Vec<u8>, BackupInfo), BackupError> {
        let current = match self.sealing_hsm().await {
            Ok((current, _)) => current,
            Err(EnclaveError::Store(e)) => return Err(BackupError::Store(e)),
            Err(_) => return Err(BackupError::Damaged),
        };
        let (now, random) = (self.clock.now(), &*self.random);
        backup::write(&self.store, &self.hsms, current, now, random).await
    }

    /// Seals every enclave row that is under another key under the one with `id`; how many there
    /// were. Both keys must be known here.
    pub(crate) async fn reseal(&self, id: [u8; HSM_ID_BYTES]) -> Result<u64, EnclaveError> {
        let mut resealed = 0;
        // Another look until nothing is found: a node that has not seen the system's row change
        // may have made an enclave in between.
        loop {
            let mut done = 0;
            let mut from = first();
            loop {
                let page = self.store.scan(from..end(), PAGE_ROWS, PAGE_BYTES).await?;
                for (meta_key, value) in page.rows() {
                    if value.first_chunk() != Some(&id) {
                        done += u64::from(self.reseal_row(id, meta_key, value).await?);
                    }
                }
                match page.len().checked_sub(1) {
                    Some(last) => from = Bytes::from([page.row(last).0, &[0]].concat()),
                    None => break,
                }
            }
            if done == 0 {
                return Ok(resealed);
            }
            resealed += done;
        }
    }

    /// `false` if the row changed meanwhile; then the next look finds it again, or gone.
    async fn reseal_row(
        &self,
        id: [u8; HSM_ID_BYTES],
        meta_key: &[u8],
        value: &[u8],
    ) -> Result<bool, EnclaveError> {
        let plain = match self.hsms.open(meta_key, value).await {
            Err(HsmError::Sealed) => return Err(EnclaveError::Damaged),
            other => other?,
        };
        let sealed = self.hsms.seal(id, meta_key, plain).await?;
        let check = Check {
            key: Bytes::copy_from_slice(meta_key),
            expected: Some(Bytes::copy_from_slice(value)),
        };
        let write = Write::Put(Bytes::copy_from_slice(meta_key), sealed.into());
        let outcome = self.store.commit(vec![check], vec![write]).await?;
        Ok(outcome == Outcome::Committed)
    }
}

/// The system's row: its name is empty, so it is the first.
fn first() -> Bytes {
    enclave_row(&Scope::System)
}

fn end() -> Bytes {
    prefix_end(&first())
}
