//! Buckets: create, look at, delete, and their default encryption.

use http::StatusCode;
use http::header::HeaderName;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::Body;
use moat_s3::ErrorCode;
use moat_s3::request::KmsKeyId;
use moat_s3::xml::{
    BucketEncryption, access_control_policy, encryption_configuration, list_buckets_result,
    location_constraint, read_bucket_encryption, read_create_bucket_configuration,
    versioning_configuration,
};

use super::answer::{Answer, OWNER, empty, set, xml};
use super::body::small_body;
use super::call::Call;
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::rows::DefaultEncryption;

/// The largest document that configures a bucket, in bytes: they have a few elements.
const CONFIGURATION_BYTES_MAX: usize = 64 * 1024;

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    pub(super) async fn list_buckets(&self, call: &Call<'_>) -> Result<Answer> {
        let prefix = call.query.get("prefix").unwrap_or_default();
        let after = call.query.get("continuation-token").unwrap_or_default();
        let count_max = call.number("max-buckets", 10_000)?.clamp(1, 10_000) as usize;
        let buckets = self.store.buckets().await?;
        let mut chosen = buckets
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(prefix) && name.as_str() > after);
        let page: Vec<_> = chosen.by_ref().take(count_max).collect();
        let more = chosen.next().is_some();

        let next = page.last().filter(|_| more).map(|(name, _)| name.as_str());
        let shown = page.iter().map(|(name, row)| (name.as_str(), row.created));
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        Ok(xml(list_buckets_result(&OWNER, shown, prefix, next)))
    }

    pub(super) async fn create_bucket(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        let bytes = small_body(call, body, CONFIGURATION_BYTES_MAX).await?;
        let region = read_create_bucket_configuration(&bytes)?;
        let region = region.location_constraint.unwrap_or_default();
        let locked = call.header("x-amz-bucket-object-lock-enabled")?;
        if locked.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(Error::new(
                ErrorCode::NotImplemented,
                "Object lock is not supported yet.",
            ));
        }
        let bucket = call.bucket()?;
        self.store.create_bucket(bucket, &region, None).await?;
        let mut answer = empty(StatusCode::OK);
        set(
            answer.headers_mut(),
            http::header::LOCATION,
            format!("/{bucket}"),
        );
        Ok(answer)
    }

    pub(super) async fn head_bucket(&self, call: &Call<'_>) -> Result<Answer> {
        let row = self.store.bucket_row(call.bucket()?).await?;
        let mut answer = empty(StatusCode::OK);
        let name = HeaderName::from_static("x-amz-bucket-region");
        set(answer.headers_mut(), name, self.region_of(&row.region));
        Ok(answer)
    }

    pub(super) async fn delete_bucket(&self, call: &Call<'_>) -> Result<Answer> {
        let bucket = call.bucket()?;
        // MinIO's clients ask so to remove a bucket with all that is in it.
        let forced = call.header("x-minio-force-delete")?;
        if forced.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.store.empty_bucket(bucket).await?;
        }
        self.store.delete_bucket(bucket).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn bucket_location(&self, call: &Call<'_>) -> Result<Answer> {
        let row = self.store.bucket_row(call.bucket()?).await?;
        Ok(xml(location_constraint(self.region_of(&row.region))))
    }

    fn region_of<'a>(&'a self, own: &'a str) -> &'a str {
        [self.store.settings.region.as_str(), own]
            .into_iter()
            .find(|region| !region.is_empty())
            .unwrap_or(DEFAULT_REGION)
    }

    /// A bucket that never had versioning answers with an empty document.
    pub(super) async fn bucket_versioning(&self, call: &Call<'_>) -> Result<Answer> {
        self.store.bucket_row(call.bucket()?).await?;
        Ok(xml(versioning_configuration(None)))
    }

    pub(super) async fn bucket_encryption(&self, call: &Call<'_>) -> Result<Answer> {
        let row = self.store.bucket_row(call.bucket()?).await?;
        let encryption = row
            .encryption
            .ok_or(ErrorCode::ServerSideEncryptionConfigurationNotFound)?;
        let rule = match encryption {
            DefaultEncryption::S3 => BucketEncryption::S3,
            DefaultEncryption::Kms { named, bucket_key } => BucketEncryption::Kms {
                key_id: if named.is_empty() {
                    None
                } else {
                    Some(KmsKeyId::parse(&named)?)
                },
                bucket_key_enabled: bucket_key,
            },
        };
        Ok(xml(encryption_configuration(&rule)))
    }

    pub(super) async fn put_bucket_encryption(
        &self,
        call: &Call<'_>,
        body: Body,
    ) -> Result<Answer> {
        let bytes = small_body(call, body, CONFIGURATION_BYTES_MAX).await?;
        let encryption = match read_bucket_encryption(&bytes)? {
            BucketEncryption::S3 => DefaultEncryption::S3,
            BucketEncryption::Kms {
                key_id,
                bucket_key_enabled,
            } => DefaultEncryption::Kms {
                named: key_id.map(|id| id.named().to_owned()).unwrap_or_default(),
                bucket_key: bucket_key_enabled,
            },
        };
        self.store
            .set_encryption(call.bucket()?, Some(encryption))
            .await?;
        Ok(empty(StatusCode::OK))
    }

    pub(super) async fn delete_bucket_encryption(&self, call: &Call<'_>) -> Result<Answer> {
        self.store.set_encryption(call.bucket()?, None).await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn bucket_acl(&self, call: &Call<'_>) -> Result<Answer> {
        self.store.bucket_row(call.bucket()?).await?;
        Ok(xml(access_control_policy(&OWNER)))
    }

    pub(super) async fn object_acl(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        if self.store.object(bucket, key).await?.is_none() {
            self.store.bucket_row(bucket).await?;
            return Err(crate::store::no_such_key(key));
        }
        Ok(xml(access_control_policy(&OWNER)))
    }
}

/// The region that S3 means where none is named.
const DEFAULT_REGION: &str = "us-east-1";
