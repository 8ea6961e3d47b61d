//! One request, parsed: what it is about, and what it says.

use http::request::Parts;
use moat_s3::ErrorCode;
use moat_s3::request::{Operation, Query};
use moat_s3::sigv4::{ChunkSeed, PayloadHash};
use moat_types::{BucketName, ObjectKey};

use crate::error::{Error, Result};

/// A request whose signature was verified. The body travels apart from it.
pub(super) struct Call<'a> {
    pub(super) parts: &'a Parts,
    pub(super) query: &'a Query<'a>,
    pub(super) operation: Operation,
    pub(super) bucket: Option<BucketName>,
    pub(super) key: Option<ObjectKey>,
    /// Whether the client spoke TLS, to us or to a trusted proxy.
    pub(super) secure: bool,
    pub(super) payload: PayloadHash,
    pub(super) chunk_seed: Option<ChunkSeed>,
}

impl Call<'_> {
    pub(super) fn bucket(&self) -> Result<&BucketName> {
        self.bucket
            .as_ref()
            .ok_or_else(|| ErrorCode::InvalidBucketName.into())
    }

    pub(super) fn key(&self) -> Result<&ObjectKey> {
        self.key
            .as_ref()
            .ok_or_else(|| ErrorCode::InvalidObjectName.into())
    }

    /// A header as text; missing and empty are the same.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>> {
        let text = moat_s3::request::header_text(&self.parts.headers, name)?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// A whole number in the query.
    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64> {
        match self.query.get(name).filter(|text| !text.is_empty()) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| {
                Error::new(
                    ErrorCode::InvalidArgument,
                    format!("Provided {name} not an integer or within integer range"),
                )
                .with("ArgumentName", name)
                .with("ArgumentValue", text)
            }),
        }
    }

    /// Objects have one version today, which S3 calls `null`.
    pub(super) fn refuse_other_versions(&self) -> Result<()> {
        match self.query.get("versionId") {
            None | Some("null") => Ok(()),
            Some(id) => Err(Error::from(ErrorCode::NoSuchVersion).with("VersionId", id)),
        }
    }
}
