//! Deciding how a new object is encrypted, and opening the envelope of an existing one.

use std::sync::Arc;

use moat_crypto::{Dek, EpochKey, Place, WrappedDek, Wrapping};
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{CustomerKey, KmsKeyId, SseRequest};
use moat_types::{BlobId, BucketName, EnclaveName, EpochId, KeyName, ObjectKey, Random, VersionId};

use crate::Settings;
use crate::epochs::Epochs;
use crate::error::{Error, Result};
use crate::rows::{BucketRow, DefaultEncryption, Envelope, Scheme};

/// The encryption that a new object gets.
#[derive(Debug, Clone)]
pub(crate) enum Protection {
    Epoch {
        scheme: Scheme,
        key: KeyName,
        context: Vec<u8>,
    },
    Customer(CustomerKey),
}

impl Protection {
    /// What the request asked for, else the bucket's rule, else the store's.
    pub(crate) fn decide(
        asked: SseRequest,
        bucket: &BucketRow,
        settings: &Settings,
    ) -> Result<Self> {
        match (asked, &bucket.encryption) {
            (SseRequest::Customer(key), _) => Ok(Self::Customer(key)),
            (
                SseRequest::Kms {
                    key_id, context, ..
                },
                rule,
            ) => {
                let context = context.map(|context| context.header.into_bytes());
                let key_id = match (key_id, rule) {
                    // S3A repeats the algorithm of a HEAD answer that hides the key id: what it
                    // means is the key that the object had, which is the bucket's.
                    (None, Some(DefaultEncryption::Kms { named, .. })) => rule_key(named)?,
                    (named, _) => named,
                };
                Ok(Self::kms(key_id, context.unwrap_or_default(), settings))
            }
            (SseRequest::S3, _) | (SseRequest::None, Some(DefaultEncryption::S3)) => {
                Ok(Self::s3(settings))
            }
            (SseRequest::None, Some(DefaultEncryption::Kms { named, .. })) => {
                Ok(Self::kms(rule_key(named)?, Vec::new(), settings))
            }
            (SseRequest::None, None) if settings.auto_encryption => {
                Ok(Self::kms(None, Vec::new(), settings))
            }
            (SseRequest::None, None) => Ok(Self::s3(settings)),
        }
    }

    fn s3(settings: &Settings) -> Self {
        Self::Epoch {
            scheme: Scheme::S3,
            key: settings.default_key.clone(),
            context: Vec::new(),
        }
    }

    fn kms(key_id: Option<KmsKeyId>, context: Vec<u8>, settings: &Settings) -> Self {
        let (named, key) = match key_id {
            Some(id) => (id.named().to_owned(), id.key_name().clone()),
            None => (
                settings.default_key.as_str().to_owned(),
                settings.default_key.clone(),
            ),
        };
        Self::Epoch {
            scheme: Scheme::Kms { named },
            key,
            context,
        }
    }

    /// The client's encryption context, as its header was; empty for none.
    pub(crate) fn context(&self) -> &[u8] {
        match self {
            Self::Epoch { context, .. } => context,
            Self::Customer(_) => &[],
        }
    }

    /// Whether the ETag must be the MD5 of the content.
    pub(crate) const fn etag_is_md5(&self) -> bool {
        matches!(
            self,
            Self::Epoch {
                scheme: Scheme::S3,
                ..
            }
        )
    }
}

/// The key that a bucket's rule names; `None` for the store's default key.
fn rule_key(named: &str) -> Result<Option<KmsKeyId>> {
    if named.is_empty() {
        Ok(None)
    } else {
        Ok(Some(KmsKeyId::parse(named)?))
    }
}

/// The place of an object's DEK, without what wraps it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) bucket: &'a BucketName,
    pub(crate) object: &'a ObjectKey,
    pub(crate) version: VersionId,
    pub(crate) body: BlobId,
}

/// The key that wraps DEKs for one protection.
pub(crate) struct Kek {
    pub(crate) epoch: Option<(KeyName, EpochId)>,
    key: Arc<EpochKey>,
    enclave: EnclaveName,
}

/// An envelope that was opened.
pub(crate) struct OpenEnvelope {
    pub(crate) dek: Dek,
    pub(crate) context: Vec<u8>,
}

impl Kek {
    /// The key under which new objects of `bucket` are sealed.
    pub(crate) async fn for_sealing<M: MetaStore>(
        epochs: &Epochs<M>,
        bucket: &BucketName,
        protection: &Protection,
    ) -> Result<Self> {
        let enclave = epochs.ring().enclave().clone();
        match protection {
            Protection::Epoch { key, .. } => {
                let (epoch, epoch_key) = epochs.sealing(bucket, key).await?;
                Ok(Self {
                    epoch: Some((key.clone(), epoch)),
                    key: epoch_key,
                    enclave,
                })
            }
            Protection::Customer(customer) => Self::customer(customer, enclave),
        }
    }

    /// The key that opens an existing envelope; for SSE-C the caller must bring it.
    pub(crate) async fn for_opening<M: MetaStore>(
        epochs: &Epochs<M>,
        bucket: &BucketName,
        envelope: &Envelope,
        customer: Option<&CustomerKey>,
    ) -> Result<Self> {
        let enclave = epochs.ring().enclave().clone();
        match (&envelope.epoch, customer) {
            (Some((key, epoch)), None) => {
                let epoch_key = epochs.opening(bucket, key, *epoch).await?;
                Ok(Self {
                    epoch: envelope.epoch.clone(),
                    key: epoch_key,
                    enclave,
                })
            }
            (Some(_), Some(_)) => Err(Error::new(
                ErrorCode::InvalidRequest,
                "The encryption parameters are not applicable to this object: it is not encrypted \
                 with a customer-provided key.",
            )),
            (None, None) => Err(Error::new(
                ErrorCode::InvalidRequest,
                "The object was stored using a form of server side encryption. The correct \
                 parameters must be provided to retrieve the object.",
            )),
            (None, Some(customer)) => {
                let Scheme::Customer { key_md5 } = &envelope.scheme else {
                    return Err(Error::damaged("an envelope without epoch is not SSE-C"));
                };
                if *key_md5 != customer.md5_base64 {
                    return Err(wrong_customer_key());
                }
                Self::customer(customer, enclave)
            }
        }
    }

    fn customer(customer: &CustomerKey, enclave: EnclaveName) -> Result<Self> {
        let key = EpochKey::from_customer_key(&customer.key).ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                "The secret key was invalid for the algorithm.",
            )
        })?;
        Ok(Self {
            epoch: None,
            key: Arc::new(key),
            enclave,
        })
    }

    fn place<'a>(&'a self, target: Target<'a>, context: &'a [u8]) -> Place<'a> {
        place(&self.enclave, self.epoch.as_ref(), target, context)
    }

    /// Wraps `dek` for its place.
    pub(crate) fn seal(
        &self,
        protection: &Protection,
        dek: &Dek,
        target: Target<'_>,
        random: &dyn Random,
    ) -> Envelope {
        let scheme = match protection {
            Protection::Epoch { scheme, .. } => scheme.clone(),
            Protection::Customer(customer) => Scheme::Customer {
                key_md5: customer.md5_base64.clone(),
            },
        };
        let context = protection.context();
        let sealed_context = if context.is_empty() {
            Vec::new()
        } else {
            self.key
                .seal_context(context, &self.place(target, &[]), random)
        };
        let wrapped = self.key.wrap(dek, &self.place(target, context), random);
        Envelope {
            scheme,
            epoch: self.epoch.clone(),
            wrapped,
            sealed_context,
        }
    }

    /// Opens an envelope.
    pub(crate) fn open(&self, envelope: &Envelope, target: Target<'_>) -> Result<OpenEnvelope> {
        let context = if envelope.sealed_context.is_empty() {
            Vec::new()
        } else {
            self.key
                .open_context(&envelope.sealed_context, &self.place(target, &[]))?
        };
        let opened = self
            .key
            .unwrap(&envelope.wrapped, &self.place(target, &context));
        match opened {
            Ok(dek) => Ok(OpenEnvelope { dek, context }),
            // With SSE-C a wrong key and damage look alike; the client brought the key.
            Err(_) if self.epoch.is_none() => Err(wrong_customer_key()),
            Err(error) => Err(error.into()),
        }
    }

    /// Holds an upload's attributes key until Complete.
    pub(crate) fn hold_attributes_key(
        &self,
        dek: &Dek,
        target: Target<'_>,
        random: &dyn Random,
    ) -> WrappedDek {
        self.key
            .wrap_attributes_key(&dek.attributes_key(), &self.place(target, &[]), random)
    }

    /// Opens what `hold_attributes_key` gave.
    pub(crate) fn held_attributes_key(
        &self,
        wrapped: &WrappedDek,
        target: Target<'_>,
    ) -> Result<moat_crypto::AttributesKey> {
        Ok(self
            .key
            .unwrap_attributes_key(wrapped, &self.place(target, &[]))?)
    }

    /// The key of an epoch by name: for the attributes keys held under the store's own key.
    pub(crate) async fn of_epoch<M: MetaStore>(
        epochs: &Epochs<M>,
        bucket: &BucketName,
        key: &KeyName,
        epoch: EpochId,
    ) -> Result<Self> {
        let epoch_key = epochs.opening(bucket, key, epoch).await?;
        let enclave = epochs.ring().enclave().clone();
        Ok(Self {
            epoch: Some((key.clone(), epoch)),
            key: epoch_key,
            enclave,
        })
    }
}

fn place<'a>(
    enclave: &'a EnclaveName,
    epoch: Option<&'a (KeyName, EpochId)>,
    target: Target<'a>,
    context: &'a [u8],
) -> Place<'a> {
    let wrapping = match epoch {
        Some((key, epoch)) => Wrapping::Epoch {
            enclave,
            key,
            epoch: *epoch,
        },
        None => Wrapping::Customer,
    };
    Place {
        wrapping,
        bucket: target.bucket,
        object: target.object,
        version: target.version,
        part: 0,
        blob: target.body,
        context,
    }
}

/// What the sealed attributes of the object in this envelope are bound to. The client's context
/// is left out: it is bound by the wrap of the DEK.
pub(crate) fn attributes_place(
    enclave: &EnclaveName,
    envelope: &Envelope,
    target: Target<'_>,
) -> Vec<u8> {
    place(enclave, envelope.epoch.as_ref(), target, &[]).associated_data()
}

fn wrong_customer_key() -> Error {
    Error::new(
        ErrorCode::AccessDenied,
        "Access Denied. The customer-provided encryption key is not the one that the object was \
         encrypted with.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(asked: SseRequest, rule: Option<DefaultEncryption>, auto: bool) -> (String, bool) {
        let settings = Settings {
            default_key: KeyName::parse("default").unwrap(),
            auto_encryption: auto,
            region: String::new(),
            domains: Vec::new(),
        };
        let bucket = BucketRow {
            created: moat_types::UnixMillis(0),
            deleting: false,
            encryption: rule,
            region: String::new(),
        };
        match Protection::decide(asked, &bucket, &settings).unwrap() {
            Protection::Epoch { scheme, key, .. } => (
                key.as_str().to_owned(),
                matches!(scheme, Scheme::Kms { .. }),
            ),
            Protection::Customer(_) => panic!("not asked for"),
        }
    }

    #[test]
    fn the_request_wins_over_the_rule_and_the_rule_over_the_store() {
        let rule = |named: &str| {
            Some(DefaultEncryption::Kms {
                named: named.into(),
                bucket_key: false,
            })
        };
        let kms = |named: Option<&str>| SseRequest::Kms {
            key_id: named.map(|named| KmsKeyId::parse(named).unwrap()),
            context: None,
            bucket_key_enabled: None,
        };
        let key = |name: &str, kms: bool| (name.to_owned(), kms);
        assert_eq!(
            decided(SseRequest::None, None, false),
            key("default", false)
        );
        assert_eq!(decided(SseRequest::None, None, true), key("default", true));
        assert_eq!(decided(SseRequest::None, rule("b"), false), key("b", true));
        assert_eq!(
            decided(SseRequest::None, rule(""), false),
            key("default", true)
        );
        assert_eq!(
            decided(SseRequest::S3, rule("b"), true),
            key("default", false)
        );
        assert_eq!(decided(kms(Some("a")), rule("b"), false), key("a", true));
        assert_eq!(decided(kms(None), None, false), key("default", true));
        // Spark 3 over plain HTTP: the algorithm without the key means the bucket's key.
        assert_eq!(decided(kms(None), rule("b"), false), key("b", true));
    }
}
