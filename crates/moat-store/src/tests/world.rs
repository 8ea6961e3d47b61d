//! What the tests run against.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};
use moat_blob::Disk;
use moat_crypto::{Census, EpochKey, EpochScope, KeyRing, KeyRingError, NewEpoch, RewrappedEpoch};
use moat_meta::{Embedded, Options};
use moat_s3::request::{Conditions, CustomerKey, KmsKeyId, SseRequest};
use moat_types::{
    BucketName, EnclaveName, EpochId, KeyName, KeyVersion, ObjectKey, SecretBytes, SystemClock,
    SystemRandom,
};

use crate::error::{Error, Result};
use crate::objects::{Description, Written};
use crate::payload::{Payload, PayloadSummary};
use crate::{Parts, Settings, Store};

pub(super) type TestStore = Store<Embedded, Disk>;

/// A key manager in memory. The wrapped form is the epoch's id.
#[derive(Default)]
pub(super) struct Ring {
    epochs: Mutex<HashMap<EpochId, (EpochScope, [u8; 32])>>,
    pub(super) disabled: Mutex<HashSet<String>>,
    enclave: Option<EnclaveName>,
    /// The latest version of every key.
    pub(super) version: Mutex<u32>,
    /// The oldest version that there is.
    pub(super) oldest: Mutex<u32>,
    pub(super) rewraps: Mutex<Vec<EpochId>>,
}

impl Ring {
    fn latest(&self) -> u32 {
        (*self.version.lock().unwrap()).max(1)
    }

    fn usable(&self, key: &KeyName) -> std::result::Result<(), KeyRingError> {
        if key.as_str() == "missing" {
            return Err(KeyRingError::NotFound { key: key.clone() });
        }
        if self.disabled.lock().unwrap().contains(key.as_str()) {
            return Err(KeyRingError::Disabled { key: key.clone() });
        }
        Ok(())
    }
}

impl KeyRing for Ring {
    fn enclave(&self) -> &EnclaveName {
        self.enclave.as_ref().unwrap()
    }

    fn held(&self, epoch: &EpochId) -> Option<Arc<EpochKey>> {
        if *self.oldest.lock().unwrap() > 1 {
            // As after the end of all leases.
            return None;
        }
        let (scope, material) = self.epochs.lock().unwrap().get(epoch)?.clone();
        self.usable(&scope.key).ok()?;
        EpochKey::new(SecretBytes::new(material.to_vec())).map(Arc::new)
    }

    fn generate(
        &self,
        scope: EpochScope,
    ) -> BoxFuture<'_, std::result::Result<NewEpoch, KeyRingError>> {
        Box::pin(async move {
            self.usable(&scope.key)?;
            let mut material = [0; 32];
            moat_types::Random::fill(&SystemRandom, &mut material);
            let wrapped = scope.epoch.as_bytes().to_vec();
            self.epochs
                .lock()
                .unwrap()
                .insert(scope.epoch, (scope, material));
            let key = Arc::new(EpochKey::new(SecretBytes::new(material.to_vec())).unwrap());
            Ok(NewEpoch {
                version: KeyVersion::FIRST,
                wrapped,
                key,
            })
        })
    }

    fn open(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, std::result::Result<Arc<EpochKey>, KeyRingError>> {
        Box::pin(async move {
            self.usable(&scope.key)?;
            let tampered = KeyRingError::Tampered {
                key: scope.key.clone(),
            };
            let (id, version) = wrapped.split_first_chunk::<16>().ok_or(tampered.clone())?;
            let version = version.try_into().map_or(1, u32::from_be_bytes);
            if version < *self.oldest.lock().unwrap() {
                return Err(tampered);
            }
            let id = *id;
            let epochs = self.epochs.lock().unwrap();
            let (known, material) = epochs
                .get(&EpochId::from_bytes(id))
                .ok_or(tampered.clone())?;
            if *known != scope {
                return Err(tampered);
            }
            Ok(Arc::new(
                EpochKey::new(SecretBytes::new(material.to_vec())).unwrap(),
            ))
        })
    }

    fn rewrap(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, std::result::Result<RewrappedEpoch, KeyRingError>> {
        Box::pin(async move {
            let version = self.latest();
            self.usable(&scope.key)?;
            self.rewraps.lock().unwrap().push(scope.epoch);
            // The wrapped form says the version behind the id; the first one says nothing.
            let id = wrapped[..16].to_vec();
            let wrapped = match version {
                1 => id,
                version => [&id[..], &version.to_be_bytes()].concat(),
            };
            Ok(RewrappedEpoch {
                version: KeyVersion::new(version).unwrap(),
                wrapped,
            })
        })
    }

    fn check(&self, key: KeyName) -> BoxFuture<'_, std::result::Result<(), KeyRingError>> {
        Box::pin(async move { self.usable(&key) })
    }

    fn report(&self, _: Census) -> BoxFuture<'_, std::result::Result<(), KeyRingError>> {
        Box::pin(async { Ok(()) })
    }
}

pub(super) struct World {
    pub(super) store: Arc<TestStore>,
    pub(super) ring: Arc<Ring>,
    pub(super) folder: tempfile::TempDir,
}

pub(super) fn bucket() -> BucketName {
    BucketName::parse("bucket").unwrap()
}

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ring = Arc::new(Ring {
            enclave: Some(EnclaveName::parse("test").unwrap()),
            ..Ring::default()
        });
        let parts = Parts {
            meta: Arc::new(Embedded::open(folder.path().join("meta"), Options::default()).unwrap()),
            blobs: Arc::new(Disk::open(folder.path().join("blobs")).unwrap()),
            ring: Arc::clone(&ring) as Arc<dyn KeyRing>,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let settings = Settings {
            default_key: KeyName::parse("default-key").unwrap(),
            auto_encryption: false,
            region: String::new(),
            domains: Vec::new(),
        };
        let store = Store::open(parts, settings).await.unwrap();
        store.create_bucket(&bucket(), "", None).await.unwrap();
        Self {
            store,
            ring,
            folder,
        }
    }

    pub(super) async fn put(&self, name: &str, content: &[u8], asked: SseRequest) -> Written {
        self.try_put(name, content, asked, &Conditions::default())
            .await
            .unwrap()
    }

    pub(super) async fn try_put(
        &self,
        name: &str,
        content: &[u8],
        asked: SseRequest,
        condition: &Conditions,
    ) -> Result<Written> {
        self.try_put_in(&bucket(), name, content, asked, condition)
            .await
    }

    pub(super) async fn put_in(
        &self,
        bucket: &BucketName,
        name: &str,
        content: &[u8],
        asked: SseRequest,
    ) -> Written {
        self.try_put_in(bucket, name, content, asked, &Conditions::default())
            .await
            .unwrap()
    }

    async fn try_put_in(
        &self,
        bucket: &BucketName,
        name: &str,
        content: &[u8],
        asked: SseRequest,
        condition: &Conditions,
    ) -> Result<Written> {
        let payload = Pieces::new(content);
        let description = Description {
            headers: vec![("content-type".into(), b"text/x-very-distinctive".to_vec())],
            metadata: vec![("note".into(), b"distinctive-user-metadata".to_vec())],
            storage_class: String::new(),
        };
        self.store
            .put_object(bucket, &key(name), asked, description, condition, payload)
            .await
    }

    pub(super) async fn get(&self, name: &str, customer: Option<&CustomerKey>) -> Result<Vec<u8>> {
        self.get_range(name, customer, None).await
    }

    pub(super) async fn get_range(
        &self,
        name: &str,
        customer: Option<&CustomerKey>,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Vec<u8>> {
        let object = self
            .store
            .open_object(&bucket(), &key(name), customer)
            .await?;
        let range = range.unwrap_or(0..object.row.entry.size);
        let pieces = self.store.pieces(&object, range.start, range.end).await?;
        let source = self.store.read(object.row.body, pieces).await?;
        let collected = source.collect().await.map_err(crate::objects::internal)?;
        Ok(collected.to_bytes().to_vec())
    }

    /// Every file under the folder, read whole.
    pub(super) fn raw_files(&self) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(path).unwrap()));
                }
            }
        }
        files
    }
}

/// A payload in memory, handed over in pieces of an odd size.
pub(super) struct Pieces {
    rest: Vec<Bytes>,
    length: Option<u64>,
    md5: Option<Md5>,
    fail_at_end: bool,
}

impl Pieces {
    pub(super) fn new(content: &[u8]) -> Self {
        let mut rest: Vec<Bytes> = content.chunks(70_001).map(Bytes::copy_from_slice).collect();
        rest.reverse();
        Self {
            rest,
            length: Some(content.len() as u64),
            md5: None,
            fail_at_end: false,
        }
    }

    /// Without a length beforehand.
    pub(super) fn of_unknown_length(content: &[u8]) -> Self {
        Self {
            length: None,
            ..Self::new(content)
        }
    }

    /// Breaks off instead of ending.
    pub(super) fn cut_short(content: &[u8]) -> Self {
        Self {
            fail_at_end: true,
            ..Self::new(content)
        }
    }
}

impl Payload for Pieces {
    fn need_md5(&mut self) {
        self.md5 = Some(Md5::new());
    }

    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        tokio::task::yield_now().await;
        let piece = self.rest.pop();
        if piece.is_none() && self.fail_at_end {
            return Err(Error::from(moat_s3::ErrorCode::IncompleteBody));
        }
        if let (Some(md5), Some(piece)) = (&mut self.md5, &piece) {
            md5.update(piece);
        }
        Ok(piece)
    }

    fn finish(self) -> Result<PayloadSummary> {
        Ok(PayloadSummary {
            md5: self.md5.map(|md5| md5.finalize().into()),
            checksum: None,
        })
    }
}

pub(super) fn customer(byte: u8) -> CustomerKey {
    let key = vec![byte; 32];
    let md5 = Md5::digest(&key);
    let md5_base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, md5);
    CustomerKey {
        key: SecretBytes::new(key),
        md5_base64,
    }
}

pub(super) fn kms(name: &str) -> SseRequest {
    SseRequest::Kms {
        key_id: Some(KmsKeyId::parse(name).unwrap()),
        context: None,
        bucket_key_enabled: None,
    }
}

/// Content in which every 16 bytes are distinctive.
pub(super) fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

impl TestStore {
    /// Number of rows in a range.
    pub(super) async fn meta_rows(&self, range: std::ops::Range<Bytes>) -> usize {
        moat_meta::MetaStore::scan(&*self.meta, range, usize::MAX, usize::MAX)
            .await
            .unwrap()
            .len()
    }
}
