//! Buckets: create, look at, delete, and their default encryption.

use http::StatusCode;
use http::header::HeaderName;
use hyper::body::Incoming;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::xml::{self as documents, XmlWriter};

use super::answer::{Answer, empty, iso, set, xml};
use super::body::small_body;
use super::call::Call;
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::rows::DefaultEncryption;

/// The largest document that configures a bucket, in bytes: they have a few elements.
const CONFIGURATION_BYTES_MAX: usize = 64 * 1024;

/// The owner of everything, until there are accounts.
pub(super) const OWNER_ID: &str =
    "02d6176db174dc93cb1b899f7c6078f08654445fe8cf1b6ce98d8855f66bdbf4";
/// Its display name.
pub(super) const OWNER_NAME: &str = "moat";

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

        let mut document = XmlWriter::document(256 + page.len() * 128);
        document.open_root("ListAllMyBucketsResult");
        write_owner(&mut document);
        document.open("Buckets");
        for (name, row) in &page {
            document.open("Bucket");
            document.text("Name", name.as_str());
            document.text("CreationDate", &iso(row.created));
            document.close("Bucket");
        }
        document.close("Buckets");
        if let Some((last, _)) = page.last().filter(|_| more) {
            document.text("ContinuationToken", last.as_str());
        }
        if !prefix.is_empty() {
            document.text("Prefix", prefix);
        }
        document.close("ListAllMyBucketsResult");
        Ok(xml(document.finish()))
    }

    pub(super) async fn create_bucket(&self, call: &Call<'_>, body: Incoming) -> Result<Answer> {
        let bytes = small_body(call, body, CONFIGURATION_BYTES_MAX).await?;
        let region = documents::read_create_bucket_configuration(&bytes)?;
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
        let region = self.region_of(&row.region);
        let mut document = XmlWriter::document(128);
        document.open_root("LocationConstraint");
        // S3 writes its oldest region as an empty element.
        if region != DEFAULT_REGION {
            document.escaped(region);
        }
        document.close("LocationConstraint");
        Ok(xml(document.finish()))
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
        let mut document = XmlWriter::document(128);
        document.open_root("VersioningConfiguration");
        document.close("VersioningConfiguration");
        Ok(xml(document.finish()))
    }

    pub(super) async fn bucket_encryption(&self, call: &Call<'_>) -> Result<Answer> {
        let row = self.store.bucket_row(call.bucket()?).await?;
        let encryption = row
            .encryption
            .ok_or(ErrorCode::ServerSideEncryptionConfigurationNotFound)?;
        let mut document = XmlWriter::document(384);
        document.open_root("ServerSideEncryptionConfiguration");
        document.open("Rule");
        document.open("ApplyServerSideEncryptionByDefault");
        let bucket_key = match &encryption {
            DefaultEncryption::S3 => {
                document.text("SSEAlgorithm", "AES256");
                false
            }
            DefaultEncryption::Kms { named, bucket_key } => {
                document.text("SSEAlgorithm", "aws:kms");
                if !named.is_empty() {
                    document.text("KMSMasterKeyID", named);
                }
                *bucket_key
            }
        };
        document.close("ApplyServerSideEncryptionByDefault");
        document.boolean("BucketKeyEnabled", bucket_key);
        document.close("Rule");
        document.close("ServerSideEncryptionConfiguration");
        Ok(xml(document.finish()))
    }

    pub(super) async fn put_bucket_encryption(
        &self,
        call: &Call<'_>,
        body: Incoming,
    ) -> Result<Answer> {
        let bytes = small_body(call, body, CONFIGURATION_BYTES_MAX).await?;
        let encryption = match documents::read_bucket_encryption(&bytes)? {
            documents::BucketEncryption::S3 => DefaultEncryption::S3,
            documents::BucketEncryption::Kms {
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
        Ok(private_acl())
    }

    pub(super) async fn object_acl(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        if self.store.object(bucket, key).await?.is_none() {
            self.store.bucket_row(bucket).await?;
            return Err(crate::store::no_such_key(key));
        }
        Ok(private_acl())
    }
}

/// The region that S3 means where none is named.
const DEFAULT_REGION: &str = "us-east-1";

/// ACLs are not used: the owner has everything, as in buckets with enforced ownership.
fn private_acl() -> Answer {
    let mut document = XmlWriter::document(512);
    document.open_root("AccessControlPolicy");
    write_owner(&mut document);
    document.open("AccessControlList");
    document.open("Grant");
    document.open("Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"");
    document.text("ID", OWNER_ID);
    document.text("DisplayName", OWNER_NAME);
    document.close("Grantee");
    document.text("Permission", "FULL_CONTROL");
    document.close("Grant");
    document.close("AccessControlList");
    document.close("AccessControlPolicy");
    xml(document.finish())
}

pub(super) fn write_owner(document: &mut XmlWriter) {
    document.open("Owner");
    document.text("ID", OWNER_ID);
    document.text("DisplayName", OWNER_NAME);
    document.close("Owner");
}
