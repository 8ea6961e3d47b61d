//! The native API of the key manager as a source of leases.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use moat_crypto::{Census, EpochKey, EpochScope, KeyRingError, RewrappedEpoch};
use moat_types::{EnclaveName, KeyName, KeyVersion};

use crate::client::Client;
use crate::error::Error;
use crate::ring::{LeaseSource, Leased};
use crate::wire;

/// The native API as a source of leases.
pub(crate) struct RemoteSource {
    client: Arc<Client>,
    enclave: EnclaveName,
}

impl RemoteSource {
    pub(crate) const fn new(client: Arc<Client>, enclave: EnclaveName) -> Self {
        Self { client, enclave }
    }
}

impl LeaseSource for RemoteSource {
    fn generate<'a>(
        &'a self,
        scope: &'a EpochScope,
    ) -> BoxFuture<'a, Result<Leased, KeyRingError>> {
        let answer =
            self.client
                .generate_epoch(&self.enclave, &scope.key, &scope.bucket, scope.epoch);
        answer.map(|answer| read_lease(answer, scope)).boxed()
    }

    fn open<'a>(
        &'a self,
        scope: &'a EpochScope,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Leased, KeyRingError>> {
        let EpochScope { bucket, key, epoch } = scope;
        let answer = self
            .client
            .open_epoch(&self.enclave, key, bucket, *epoch, wrapped);
        answer.map(|answer| read_lease(answer, scope)).boxed()
    }

    fn rewrap<'a>(
        &'a self,
        scope: &'a EpochScope,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<RewrappedEpoch, KeyRingError>> {
        let EpochScope { bucket, key, epoch } = scope;
        let answer = async move {
            let answer = self
                .client
                .rewrap_epoch(&self.enclave, key, bucket, *epoch, wrapped)
                .await
                .map_err(|e| e.into_key_ring_error(key))?;
            let version =
                KeyVersion::new(answer.version).ok_or_else(|| KeyRingError::Unavailable {
                    reason: "the key manager answered an epoch key with no version".into(),
                })?;
            Ok(RewrappedEpoch {
                version,
                wrapped: answer.wrapped.0,
            })
        };
        answer.boxed()
    }

    fn check<'a>(&'a self, key: &'a KeyName) -> BoxFuture<'a, Result<(), KeyRingError>> {
        let answer = async move {
            let info = self.client.key(&self.enclave, key).await;
            let info = info.map_err(|e| e.into_key_ring_error(key))?;
            if info.enabled {
                Ok(())
            } else {
                Err(KeyRingError::Disabled { key: key.clone() })
            }
        };
        answer.boxed()
    }

    fn report(&self, census: Census) -> BoxFuture<'_, Result<(), KeyRingError>> {
        let holdings = census.holdings.into_iter().map(|holding| wire::Holding {
            key: holding.key.to_string(),
            buckets: holding.buckets,
            objects: holding.objects,
            bytes: holding.bytes,
        });
        let report = wire::LakeReport {
            age_ms: u64::try_from(census.age.as_millis()).unwrap_or(u64::MAX),
            holdings: holdings.collect(),
        };
        let answer = async move {
            let told = self.client.report_lake(&self.enclave, census.lake, &report);
            told.await.map_err(|e| KeyRingError::Unavailable {
                reason: e.to_string(),
            })
        };
        answer.boxed()
    }
}

fn read_lease(
    answer: Result<wire::EpochLease, Error>,
    scope: &EpochScope,
) -> Result<Leased, KeyRingError> {
    let answer = answer.map_err(|e| e.into_key_ring_error(&scope.key))?;
    let odd = |what: &str| KeyRingError::Unavailable {
        reason: format!("the key manager answered an epoch key with {what}"),
    };
    Ok(Leased {
        key: Arc::new(EpochKey::new(answer.key.0).ok_or_else(|| odd("an odd length"))?),
        version: KeyVersion::new(answer.version).ok_or_else(|| odd("no version"))?,
        wrapped: answer.wrapped.map(|wrapped| wrapped.0).unwrap_or_default(),
        ttl: Duration::from_millis(answer.lease_ttl_ms),
    })
}
