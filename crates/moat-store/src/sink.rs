//! The way in: plaintext is digested, sealed and stored in one pass.
//!
//! Up to [`INLINE_BYTES_MAX`] sealed bytes stay in memory and are written with the metadata; more
//! goes to a disk blob as it comes in. A disk blob has a `Writing` tombstone from before it can
//! become durable until the commit that refers to it removes it.

use std::sync::Arc;

use bytes::Bytes;
use moat_blob::{BlobStore, BlobWriter};
use moat_crypto::{BlobLayout, BlobSealer, Dek, SEALED_CHUNK_BYTES};
use moat_meta::MetaStore;
use moat_types::BlobId;
use tokio::task::JoinHandle;

use crate::Store;
use crate::collector::Pending;
use crate::error::{Error, Result};
use crate::payload::{Payload, PayloadSummary};
use crate::rows::{Body, Tombstone, keys};

/// Largest sealed blob that is kept beside the metadata, in bytes: one full chunk and its frame.
pub(crate) const INLINE_BYTES_MAX: u64 = BlobLayout::new(64 * 1024).sealed_bytes();

/// Sealed bytes copied to the blob engine at once: they are still in the processor's cache.
const APPEND_BYTES: usize = 128 << 10;

/// A blob that is stored but that nothing refers to yet.
pub(crate) struct Sealed {
    pub(crate) dek: Dek,
    pub(crate) body: Body,
    /// The sealed bytes of an inline blob.
    pub(crate) inline: Option<Bytes>,
    /// Evidence of a disk blob; dropped without a commit, the blob is freed.
    pub(crate) pending: Option<Pending>,
    /// Plaintext bytes.
    pub(crate) size: u64,
    pub(crate) summary: PayloadSummary,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Takes in a whole payload. Nothing refers to the result; dropping it frees it.
    pub(crate) async fn seal_payload<P: Payload>(&self, mut payload: P) -> Result<Sealed> {
        let expected = payload.length();
        let dek = Dek::random(&*self.random);
        let id = BlobId::random(&*self.random);
        let expected_bytes = expected.map(|length| BlobLayout::new(length).sealed_bytes());
        let mut spill = Spill::new(self, id, expected_bytes.unwrap_or(0));
        if expected_bytes.is_some_and(|bytes| bytes > INLINE_BYTES_MAX) {
            spill.announce();
        }
        let mut sealer = None;
        while let Some(piece) = payload.next().await? {
            let sealer = sealer.get_or_insert_with(|| new_sealer(&dek, id, expected_bytes));
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let taken = sealer.push(rest);
                rest = &rest[taken..];
                if sealer.is_ready() {
                    spill.append(sealer.sealed()).await?;
                    sealer.clear_sealed();
                }
            }
        }
        let summary = payload.finish()?;
        let Some(sealer) = sealer else {
            return Ok(Sealed {
                dek,
                body: Body::Empty,
                inline: None,
                pending: None,
                size: 0,
                summary,
            });
        };
        let size = sealer.plain_bytes();
        let tail = sealer.finish();
        if spill.writer.is_none() && tail.len() as u64 <= INLINE_BYTES_MAX {
            let body = Body::Blob { id, inline: true };
            let inline = Some(Bytes::from(tail));
            return Ok(Sealed {
                dek,
                body,
                inline,
                pending: None,
                size,
                summary,
            });
        }
        spill.append(&tail).await?;
        let pending = Some(spill.finish(BlobLayout::new(size).sealed_bytes()).await?);
        let body = Body::Blob { id, inline: false };
        Ok(Sealed {
            dek,
            body,
            inline: None,
            pending,
            size,
            summary,
        })
    }
}

fn new_sealer(dek: &Dek, id: BlobId, expected_bytes: Option<u64>) -> BlobSealer {
    let most = APPEND_BYTES as u64 + 2 * SEALED_CHUNK_BYTES;
    let room = expected_bytes.unwrap_or(most).min(most) as usize;
    BlobSealer::new(dek, id, APPEND_BYTES, room)
}

/// A disk blob that is opened when the first bytes must leave memory.
struct Spill<'a, M: MetaStore, B: BlobStore> {
    store: &'a Store<M, B>,
    id: BlobId,
    /// Length that the blob will probably have, 0 if it is not known.
    expected_bytes: u64,
    writer: Option<B::Writer>,
    announced: Option<(Pending, JoinHandle<Result<()>>)>,
}

impl<'a, M: MetaStore, B: BlobStore> Spill<'a, M, B> {
    const fn new(store: &'a Store<M, B>, id: BlobId, expected_bytes: u64) -> Self {
        Self {
            store,
            id,
            expected_bytes,
            writer: None,
            announced: None,
        }
    }

    /// Begins to make the `Writing` tombstone durable, while the body is still coming in.
    fn announce(&mut self) {
        if self.announced.is_some() {
            return;
        }
        let since = self.store.clock.now();
        let row = Tombstone::Writing {
            process: self.store.process,
            since,
        }
        .encode();
        let pending = self.store.abandoned.guard(self.id, row.clone().into());
        let (meta, key) = (Arc::clone(&self.store.meta), keys::tombstone(self.id));
        let commit = tokio::spawn(async move {
            let write = moat_meta::Write::Put(key, row.into());
            let _ = meta.commit(Vec::new(), vec![write]).await?;
            Ok(())
        });
        self.announced = Some((pending, commit));
    }

    async fn append(&mut self, sealed: &[u8]) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                self.announce();
                let blobs = &self.store.blobs;
                self.writer
                    .insert(blobs.create(self.id, self.expected_bytes).await?)
            }
        };
        Ok(writer.append(sealed).await?)
    }

    /// Makes the blob durable, after its tombstone.
    async fn finish(self, expected_bytes: u64) -> Result<Pending> {
        let (pending, commit) = self.announced.expect("a writer is announced first");
        commit
            .await
            .map_err(|error| Error::from(moat_s3::ErrorCode::InternalError).because(error))??;
        let writer = self.writer.expect("finish follows append");
        let written = writer.finish().await?;
        if written != expected_bytes {
            return Err(Error::damaged(format!(
                "blob {} has {written} bytes instead of {expected_bytes}",
                self.id
            )));
        }
        Ok(pending)
    }
}
