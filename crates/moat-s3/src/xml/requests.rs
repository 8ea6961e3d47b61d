//! Readers of request documents.

use moat_types::{PartNumber, UnixMillis};

use super::parse::{Element, malformed, parse};
use crate::checksum::{ChecksumAlgorithm, ChecksumValue};
use crate::error::{ErrorCode, S3Error};
use crate::request::{DSSE_ALGORITHM, KMS_ALGORITHM, KmsKeyId, SSE_S3_ALGORITHM};
use crate::time::{parse_http_date, parse_iso};

/// The most objects of one DeleteObjects.
pub const DELETE_OBJECTS_MAX: usize = 1000;

/// Elements of a Delete entry, with room for ones that we skip.
const ELEMENTS_PER_DELETE: usize = 12;
/// Elements of a completed part: number, ETag, up to five checksums, and room.
const ELEMENTS_PER_PART: usize = 12;
/// Elements of the small documents.
const ELEMENTS_OF_SMALL: usize = 200;

/// CompleteMultipartUpload: the parts in ascending order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompleteMultipartUpload {
    /// At least one.
    pub parts: Vec<CompletedPart>,
}

/// A part as the client lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompletedPart {
    /// The number.
    pub number: PartNumber,
    /// The ETag without quotes.
    pub etag: String,
    /// The checksums that the client gives; nearly always none or one.
    pub checksums: Vec<ChecksumValue>,
}

/// Reads a CompleteMultipartUpload document.
///
/// # Errors
/// `MalformedXML`; `InvalidPartOrder` if the numbers do not ascend; `InvalidArgument` for a
/// number outside 1 to 10,000.
pub fn read_complete_multipart_upload(body: &[u8]) -> Result<CompleteMultipartUpload, S3Error> {
    const KNOWN: &[&str] = &[
        "Part",
        "PartNumber",
        "ETag",
        "ChecksumCRC32",
        "ChecksumCRC32C",
        "ChecksumCRC64NVME",
        "ChecksumSHA1",
        "ChecksumSHA256",
    ];
    let elements_max = usize::from(PartNumber::MAX) * ELEMENTS_PER_PART;
    let root = parse(body, "CompleteMultipartUpload", KNOWN, elements_max)?;
    let parts = root
        .all("Part")
        .map(completed_part)
        .collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Err(malformed());
    }
    if !parts.is_sorted_by(|a, b| a.number < b.number) {
        return Err(ErrorCode::InvalidPartOrder.into());
    }
    Ok(CompleteMultipartUpload { parts })
}

fn completed_part(element: &Element) -> Result<CompletedPart, S3Error> {
    let number = element.trimmed("PartNumber")?.ok_or_else(malformed)?;
    let number: i64 = number.parse().map_err(|_| malformed())?;
    let number = u32::try_from(number)
        .ok()
        .and_then(PartNumber::new)
        .ok_or_else(|| {
            S3Error::new(
                ErrorCode::InvalidArgument,
                "PartNumber must be >= 1 and <= 10000",
            )
        })?;
    let etag = element.trimmed("ETag")?.ok_or_else(malformed)?;
    let mut checksums = Vec::new();
    for algorithm in ChecksumAlgorithm::ALL {
        if let Some(text) = element.trimmed(algorithm.element_name())? {
            checksums.push(ChecksumValue::parse(algorithm, text).ok_or_else(malformed)?);
        }
    }
    Ok(CompletedPart {
        number,
        etag: unquoted(etag).to_owned(),
        checksums,
    })
}

/// An ETag without its quotes, if it has any.
fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(etag)
}

/// DeleteObjects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteRequest {
    /// Whether only failures are to be listed in the answer.
    pub quiet: bool,
    /// 1 to [`DELETE_OBJECTS_MAX`].
    pub objects: Vec<DeleteEntry>,
}

/// An object to delete, with conditions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteEntry {
    /// The key, exactly as it stands, not yet checked.
    pub key: String,
    /// The version, if one is named.
    pub version_id: Option<String>,
    /// Delete only if the ETag is this one (without quotes), or `*`.
    pub etag: Option<String>,
    /// Delete only if last modified at this time.
    pub last_modified: Option<UnixMillis>,
    /// Delete only if of this size.
    pub size: Option<u64>,
}

/// Reads a Delete document.
///
/// # Errors
/// `MalformedXML`, also for no object or more than [`DELETE_OBJECTS_MAX`], as S3 answers.
pub fn read_delete(body: &[u8]) -> Result<DeleteRequest, S3Error> {
    const KNOWN: &[&str] = &[
        "Object",
        "Key",
        "VersionId",
        "ETag",
        "LastModifiedTime",
        "Size",
        "Quiet",
    ];
    // One entry over the limit, so that the count and not the elements decide.
    let elements_max = (DELETE_OBJECTS_MAX + 1) * ELEMENTS_PER_DELETE;
    let root = parse(body, "Delete", KNOWN, elements_max)?;
    let quiet = root.flag("Quiet")?;
    let objects = root
        .all("Object")
        .map(delete_entry)
        .collect::<Result<Vec<_>, _>>()?;
    if objects.is_empty() || objects.len() > DELETE_OBJECTS_MAX {
        return Err(malformed());
    }
    Ok(DeleteRequest { quiet, objects })
}

fn delete_entry(element: &Element) -> Result<DeleteEntry, S3Error> {
    let key = element.only("Key")?.ok_or_else(malformed)?;
    let last_modified = match element.trimmed("LastModifiedTime")? {
        Some(text) => Some(
            parse_iso(text)
                .or_else(|| parse_http_date(text))
                .ok_or_else(malformed)?,
        ),
        None => None,
    };
    let size = match element.trimmed("Size")? {
        Some(text) => Some(text.parse().map_err(|_| malformed())?),
        None => None,
    };
    Ok(DeleteEntry {
        // Not trimmed: keys may begin and end with white space.
        key: key.text.clone(),
        version_id: element
            .trimmed("VersionId")?
            .filter(|id| !id.is_empty())
            .map(str::to_owned),
        etag: element
            .trimmed("ETag")?
            .map(|etag| unquoted(etag).to_owned()),
        last_modified,
        size,
    })
}

/// CreateBucketConfiguration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CreateBucketConfiguration {
    /// The region, if one is named.
    pub location_constraint: Option<String>,
}

/// Reads a CreateBucketConfiguration document; an empty body is the default.
///
/// # Errors
/// `MalformedXML`.
pub fn read_create_bucket_configuration(body: &[u8]) -> Result<CreateBucketConfiguration, S3Error> {
    if body.trim_ascii().is_empty() {
        return Ok(CreateBucketConfiguration::default());
    }
    let root = parse(
        body,
        "CreateBucketConfiguration",
        &["LocationConstraint"],
        ELEMENTS_OF_SMALL,
    )?;
    let location = root.trimmed("LocationConstraint")?;
    Ok(CreateBucketConfiguration {
        location_constraint: location
            .filter(|region| !region.is_empty())
            .map(str::to_owned),
    })
}

/// The one rule of a ServerSideEncryptionConfiguration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BucketEncryption {
    /// `AES256`.
    S3,
    /// `aws:kms`.
    Kms {
        /// The key; `None` is the default key.
        key_id: Option<KmsKeyId>,
        /// `BucketKeyEnabled`.
        bucket_key_enabled: bool,
    },
}

/// Reads a ServerSideEncryptionConfiguration document.
///
/// # Errors
/// `MalformedXML` for other than one rule or an unknown algorithm, `InvalidArgument` for a key id
/// with `AES256`, `NotImplemented` for dual-layer encryption, and those of [`KmsKeyId::parse`].
pub fn read_bucket_encryption(body: &[u8]) -> Result<BucketEncryption, S3Error> {
    const KNOWN: &[&str] = &[
        "Rule",
        "ApplyServerSideEncryptionByDefault",
        "SSEAlgorithm",
        "KMSMasterKeyID",
        "BucketKeyEnabled",
    ];
    let root = parse(
        body,
        "ServerSideEncryptionConfiguration",
        KNOWN,
        ELEMENTS_OF_SMALL,
    )?;
    let rule = root.only("Rule")?.ok_or_else(malformed)?;
    let bucket_key_enabled = rule.flag("BucketKeyEnabled")?;
    let default = rule
        .only("ApplyServerSideEncryptionByDefault")?
        .ok_or_else(malformed)?;
    // Not trimmed: spaces at an end of a key id are refused, not repaired.
    let key_id = default
        .only("KMSMasterKeyID")?
        .map(|element| element.text.as_str())
        .filter(|text| !text.is_empty());
    match default.trimmed("SSEAlgorithm")? {
        Some(SSE_S3_ALGORITHM) if key_id.is_some() => Err(S3Error::new(
            ErrorCode::InvalidArgument,
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms",
        )),
        Some(SSE_S3_ALGORITHM) => Ok(BucketEncryption::S3),
        Some(KMS_ALGORITHM) => Ok(BucketEncryption::Kms {
            key_id: key_id.map(KmsKeyId::parse).transpose()?,
            bucket_key_enabled,
        }),
        Some(DSSE_ALGORITHM) => Err(crate::request::dsse_refused()),
        _ => Err(malformed()),
    }
}

/// The state that a VersioningConfiguration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VersioningStatus {
    /// `Enabled`.
    Enabled,
    /// `Suspended`.
    Suspended,
}

impl VersioningStatus {
    /// The text of `<Status>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Suspended => "Suspended",
        }
    }
}

/// Reads a VersioningConfiguration document.
///
/// # Errors
/// `IllegalVersioningConfigurationException` without a status, as S3 answers; `NotImplemented`
/// if MFA delete is asked for; else `MalformedXML`.
pub fn read_versioning_configuration(body: &[u8]) -> Result<VersioningStatus, S3Error> {
    let root = parse(
        body,
        "VersioningConfiguration",
        &["Status", "MfaDelete"],
        ELEMENTS_OF_SMALL,
    )?;
    if root.trimmed("MfaDelete")? == Some("Enabled") {
        return Err(ErrorCode::NotImplemented.into());
    }
    match root.trimmed("Status")? {
        Some("Enabled") => Ok(VersioningStatus::Enabled),
        Some("Suspended") => Ok(VersioningStatus::Suspended),
        Some(_) => Err(malformed()),
        None => Err(ErrorCode::IllegalVersioningConfiguration.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, S3Error>) -> ErrorCode {
        result.unwrap_err().code
    }

    #[test]
    fn completed_parts_are_read_with_quoted_and_bare_etags() {
        let body = br#"<?xml version="1.0"?>
            <CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Part><PartNumber>1</PartNumber><ETag>"aa-1"</ETag>
                <ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>
              <Part><ETag>&quot;bb&#34;</ETag><PartNumber> 3 </PartNumber></Part>
              <Part><ETag>cc</ETag><PartNumber>10000</PartNumber></Part>
            </CompleteMultipartUpload>"#;
        let parts = read_complete_multipart_upload(body).unwrap().parts;
        let seen: Vec<_> = parts
            .iter()
            .map(|p| (p.number.number(), &*p.etag))
            .collect();
        assert_eq!(seen, [(1, "aa-1"), (3, "bb"), (10_000, "cc")]);
        assert_eq!(parts[0].checksums[0].algorithm(), ChecksumAlgorithm::Crc32);
    }

    #[test]
    fn bad_part_lists_have_their_codes() {
        let read = |parts: &str| {
            let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
            code(read_complete_multipart_upload(body.as_bytes()))
        };
        let part = |n: &str| format!("<Part><PartNumber>{n}</PartNumber><ETag>e</ETag></Part>");
        assert_eq!(read(""), ErrorCode::MalformedXml);
        assert_eq!(
            read("<Part><PartNumber>1</PartNumber></Part>"),
            ErrorCode::MalformedXml
        );
        assert_eq!(read("<Part><ETag>e</ETag></Part>"), ErrorCode::MalformedXml);
        assert_eq!(read(&part("x")), ErrorCode::MalformedXml);
        assert_eq!(read(&part("0")), ErrorCode::InvalidArgument);
        assert_eq!(read(&part("10001")), ErrorCode::InvalidArgument);
        assert_eq!(read(&part("-1")), ErrorCode::InvalidArgument);
        assert_eq!(read(&(part("2") + &part("1"))), ErrorCode::InvalidPartOrder);
        assert_eq!(read(&(part("2") + &part("2"))), ErrorCode::InvalidPartOrder);
    }

    #[test]
    fn ten_thousand_parts_with_all_checksums_fit() {
        let mut body = String::from("<CompleteMultipartUpload>");
        for number in 1..=10_000 {
            body +=
                &format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{number:032x}\"</ETag>");
            for algorithm in ChecksumAlgorithm::ALL {
                let value =
                    ChecksumValue::new(algorithm, &vec![1; algorithm.value_bytes()]).unwrap();
                let (name, text) = (algorithm.element_name(), value.to_base64());
                body += &format!("<{name}>{text}</{name}>");
            }
            body += "</Part>";
        }
        body += "</CompleteMultipartUpload>";
        assert!(body.len() < super::super::REQUEST_BYTES_MAX);
        let upload = read_complete_multipart_upload(body.as_bytes()).unwrap();
        assert_eq!(upload.parts.len(), 10_000);
    }

    #[test]
    fn deletes_are_read_with_exact_keys() {
        let body = "<Delete><Object><Key> a&#x1;\u{e9}/ </Key></Object><Object><Key>b</Key>\
                    <VersionId>null</VersionId><ETag>\"e\"</ETag><Size>7</Size>\
                    <LastModifiedTime>2020-01-01T00:00:00Z</LastModifiedTime></Object>\
                    <Quiet>true</Quiet></Delete>";
        let delete = read_delete(body.as_bytes()).unwrap();
        assert!(delete.quiet);
        assert_eq!(delete.objects[0].key, " a\u{1}\u{e9}/ ");
        assert_eq!(delete.objects[0].version_id, None);
        let second = &delete.objects[1];
        assert_eq!(second.version_id.as_deref(), Some("null"));
        assert_eq!((second.etag.as_deref(), second.size), (Some("e"), Some(7)));
        assert!(second.last_modified.is_some());
    }

    #[test]
    fn deletes_hold_one_to_a_thousand_objects() {
        let read = |count: usize| {
            let objects = "<Object><Key>k</Key></Object>".repeat(count);
            read_delete(format!("<Delete>{objects}</Delete>").as_bytes())
        };
        assert_eq!(read(1000).unwrap().objects.len(), 1000);
        assert_eq!(code(read(1001)), ErrorCode::MalformedXml);
        assert_eq!(code(read(0)), ErrorCode::MalformedXml);
        assert_eq!(
            code(read_delete(b"<Delete><Object/></Delete>")),
            ErrorCode::MalformedXml
        );
    }

    #[test]
    fn locations_may_be_absent() {
        let read = |body: &str| read_create_bucket_configuration(body.as_bytes()).unwrap();
        assert_eq!(read("").location_constraint, None);
        assert_eq!(
            read("<CreateBucketConfiguration/>").location_constraint,
            None
        );
        let body = "<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>";
        assert_eq!(read(body).location_constraint.as_deref(), Some("eu"));
        assert!(read_create_bucket_configuration(b"<X/>").is_err());
    }

    fn rule(inner: &str) -> Result<BucketEncryption, S3Error> {
        let body = format!(
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>{inner}\
             </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"
        );
        read_bucket_encryption(body.as_bytes())
    }

    #[test]
    fn encryption_rules_are_read() {
        assert_eq!(
            rule("<SSEAlgorithm>AES256</SSEAlgorithm>").unwrap(),
            BucketEncryption::S3
        );
        let kms =
            "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>arn:aws:kms:k1</KMSMasterKeyID>";
        let BucketEncryption::Kms {
            key_id: Some(key_id),
            ..
        } = rule(kms).unwrap()
        else {
            panic!("no key");
        };
        assert_eq!(
            (key_id.named(), key_id.key_name().as_str()),
            ("arn:aws:kms:k1", "k1")
        );
        assert!(matches!(
            rule("<SSEAlgorithm>aws:kms</SSEAlgorithm>"),
            Ok(BucketEncryption::Kms { key_id: None, .. })
        ));
    }

    #[test]
    fn bad_encryption_rules_have_their_codes() {
        assert_eq!(code(rule("")), ErrorCode::MalformedXml);
        assert_eq!(
            code(rule("<SSEAlgorithm>DES</SSEAlgorithm>")),
            ErrorCode::MalformedXml
        );
        assert_eq!(
            code(rule("<SSEAlgorithm>aws:kms:dsse</SSEAlgorithm>")),
            ErrorCode::NotImplemented
        );
        let with_key = "<SSEAlgorithm>AES256</SSEAlgorithm><KMSMasterKeyID>k</KMSMasterKeyID>";
        assert_eq!(code(rule(with_key)), ErrorCode::InvalidArgument);
        let spaced = "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID> k</KMSMasterKeyID>";
        assert_eq!(code(rule(spaced)), ErrorCode::InvalidRequest);
        let two = b"<ServerSideEncryptionConfiguration><Rule/><Rule/></ServerSideEncryptionConfiguration>";
        assert_eq!(code(read_bucket_encryption(two)), ErrorCode::MalformedXml);
    }

    #[test]
    fn versioning_is_read() {
        let read = |inner: &str| {
            let body = format!("<VersioningConfiguration>{inner}</VersioningConfiguration>");
            read_versioning_configuration(body.as_bytes())
        };
        assert_eq!(
            read("<Status>Enabled</Status>"),
            Ok(VersioningStatus::Enabled)
        );
        assert_eq!(
            read("<Status>Suspended</Status>"),
            Ok(VersioningStatus::Suspended)
        );
        assert_eq!(code(read("")), ErrorCode::IllegalVersioningConfiguration);
        assert_eq!(code(read("<Status>on</Status>")), ErrorCode::MalformedXml);
        assert_eq!(
            code(read(
                "<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>"
            )),
            ErrorCode::NotImplemented
        );
    }
}
