//! Writers of the pages of lists: objects, versions, uploads, parts.
//!
//! A page is written without an allocation per entry. With `encoding_url` names are
//! percent-encoded (slashes stay, a space is `%20`): botocore, the Java SDKs and minio-go all
//! decode that, whether or not they take `+` for a space.

use moat_types::UnixMillis;

use super::XmlWriter;
use super::answers::Checksums;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::uri::{Slash, encode_into};

/// Bytes that an entry takes besides its key: a first guess for the buffer.
const ENTRY_BYTES: usize = 256;

/// Who owns a bucket, object or upload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner<'a> {
    /// The canonical user id.
    pub id: &'a str,
    /// The name.
    pub display_name: &'a str,
}

/// An object in a list.
#[derive(Clone, Copy, Debug)]
pub struct ListedObject<'a> {
    /// The key.
    pub key: &'a str,
    /// The time of the last change.
    pub last_modified: UnixMillis,
    /// The ETag without quotes.
    pub etag: &'a str,
    /// The number of plaintext bytes.
    pub size: u64,
    /// `STANDARD`.
    pub storage_class: &'a str,
    /// The owner, where the request asks for it.
    pub owner: Option<Owner<'a>>,
    /// The checksum that the object has.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A page of ListObjects (version 1).
#[derive(Clone, Copy, Debug)]
pub struct ListObjectsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The prefix asked for; empty for none.
    pub prefix: &'a str,
    /// The delimiter asked for.
    pub delimiter: Option<&'a str>,
    /// The marker asked for; empty for none.
    pub marker: &'a str,
    /// Where the next page begins; S3 sends it only if there is a delimiter.
    pub next_marker: Option<&'a str>,
    /// The most entries asked for.
    pub max_keys: u64,
    /// Whether there are more.
    pub is_truncated: bool,
    /// Whether `encoding-type=url` was asked for.
    pub encoding_url: bool,
    /// The objects, in order.
    pub objects: &'a [ListedObject<'a>],
    /// The common prefixes, in order.
    pub common_prefixes: &'a [&'a str],
}

impl ListObjectsPage<'_> {
    /// `ListBucketResult`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut page = Page::new(
            self.encoding_url,
            self.objects.len() + self.common_prefixes.len(),
        );
        page.xml.open_root("ListBucketResult");
        page.xml.text("Name", self.bucket);
        page.name("Prefix", self.prefix);
        page.name("Marker", self.marker);
        page.optional_name("NextMarker", self.next_marker);
        page.limits(self.max_keys, self.delimiter, self.is_truncated);
        page.objects(self.objects);
        page.common_prefixes(self.common_prefixes);
        page.xml.close("ListBucketResult");
        page.xml.finish()
    }
}

/// A page of ListObjectsV2.
#[derive(Clone, Copy, Debug)]
pub struct ListObjectsV2Page<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The prefix asked for; empty for none.
    pub prefix: &'a str,
    /// The delimiter asked for.
    pub delimiter: Option<&'a str>,
    /// The key to start after, if one was asked for.
    pub start_after: Option<&'a str>,
    /// The token of the request.
    pub continuation_token: Option<&'a str>,
    /// The token of the next page, if there is one.
    pub next_continuation_token: Option<&'a str>,
    /// The most entries asked for.
    pub max_keys: u64,
    /// Whether there are more.
    pub is_truncated: bool,
    /// Whether `encoding-type=url` was asked for.
    pub encoding_url: bool,
    /// The objects, in order.
    pub objects: &'a [ListedObject<'a>],
    /// The common prefixes, in order.
    pub common_prefixes: &'a [&'a str],
}

impl ListObjectsV2Page<'_> {
    /// `ListBucketResult`.
    pub fn to_xml(&self) -> Vec<u8> {
        let entries = self.objects.len() + self.common_prefixes.len();
        let mut page = Page::new(self.encoding_url, entries);
        page.xml.open_root("ListBucketResult");
        page.xml.text("Name", self.bucket);
        page.name("Prefix", self.prefix);
        page.xml
            .optional("ContinuationToken", self.continuation_token);
        page.xml
            .optional("NextContinuationToken", self.next_continuation_token);
        page.optional_name("StartAfter", self.start_after);
        page.xml.number("KeyCount", entries as u64);
        page.limits(self.max_keys, self.delimiter, self.is_truncated);
        page.objects(self.objects);
        page.common_prefixes(self.common_prefixes);
        page.xml.close("ListBucketResult");
        page.xml.finish()
    }
}

/// A version or delete marker in a list.
#[derive(Clone, Copy, Debug)]
pub struct ListedVersion<'a> {
    /// The key.
    pub key: &'a str,
    /// The version id; `null` outside versioning.
    pub version_id: &'a str,
    /// Whether it is the latest of its key.
    pub is_latest: bool,
    /// When it was made.
    pub last_modified: UnixMillis,
    /// The owner.
    pub owner: Owner<'a>,
    /// What it is.
    pub kind: VersionKind<'a>,
}

/// What an entry of ListObjectVersions is.
#[derive(Clone, Copy, Debug)]
pub enum VersionKind<'a> {
    /// An object.
    Version {
        /// The ETag without quotes.
        etag: &'a str,
        /// The number of plaintext bytes.
        size: u64,
        /// `STANDARD`.
        storage_class: &'a str,
        /// The checksum that the version has.
        checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    },
    /// A delete marker.
    DeleteMarker,
}

/// A page of ListObjectVersions.
#[derive(Clone, Copy, Debug)]
pub struct ListObjectVersionsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The prefix asked for; empty for none.
    pub prefix: &'a str,
    /// The delimiter asked for.
    pub delimiter: Option<&'a str>,
    /// The key marker asked for; empty for none.
    pub key_marker: &'a str,
    /// The version id marker asked for; empty for none.
    pub version_id_marker: &'a str,
    /// Where the next page begins: key and version id.
    pub next: Option<(&'a str, &'a str)>,
    /// The most entries asked for.
    pub max_keys: u64,
    /// Whether there are more.
    pub is_truncated: bool,
    /// Whether `encoding-type=url` was asked for.
    pub encoding_url: bool,
    /// Versions and delete markers, in order.
    pub versions: &'a [ListedVersion<'a>],
    /// The common prefixes, in order.
    pub common_prefixes: &'a [&'a str],
}

impl ListObjectVersionsPage<'_> {
    /// `ListVersionsResult`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut page = Page::new(
            self.encoding_url,
            self.versions.len() + self.common_prefixes.len(),
        );
        page.xml.open_root("ListVersionsResult");
        page.xml.text("Name", self.bucket);
        page.name("Prefix", self.prefix);
        page.name("KeyMarker", self.key_marker);
        page.xml.text("VersionIdMarker", self.version_id_marker);
        if let Some((key, version_id)) = self.next {
            page.name("NextKeyMarker", key);
            page.xml.text("NextVersionIdMarker", version_id);
        }
        page.limits(self.max_keys, self.delimiter, self.is_truncated);
        for version in self.versions {
            page.version(version);
        }
        page.common_prefixes(self.common_prefixes);
        page.xml.close("ListVersionsResult");
        page.xml.finish()
    }
}

/// A multipart upload in a list.
#[derive(Clone, Copy, Debug)]
pub struct ListedUpload<'a> {
    /// The key.
    pub key: &'a str,
    /// The upload id.
    pub upload_id: &'a str,
    /// When it was begun.
    pub initiated: UnixMillis,
    /// Who began it and will own the object.
    pub owner: Owner<'a>,
    /// `STANDARD`.
    pub storage_class: &'a str,
    /// The checksum that it was begun with.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// A page of ListMultipartUploads.
#[derive(Clone, Copy, Debug)]
pub struct ListMultipartUploadsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The prefix asked for; empty for none.
    pub prefix: &'a str,
    /// The delimiter asked for.
    pub delimiter: Option<&'a str>,
    /// The key marker asked for; empty for none.
    pub key_marker: &'a str,
    /// The upload id marker asked for; empty for none.
    pub upload_id_marker: &'a str,
    /// Where the next page begins: key and upload id.
    pub next: Option<(&'a str, &'a str)>,
    /// The most entries asked for.
    pub max_uploads: u64,
    /// Whether there are more.
    pub is_truncated: bool,
    /// Whether `encoding-type=url` was asked for.
    pub encoding_url: bool,
    /// The uploads, in order.
    pub uploads: &'a [ListedUpload<'a>],
    /// The common prefixes, in order.
    pub common_prefixes: &'a [&'a str],
}

impl ListMultipartUploadsPage<'_> {
    /// `ListMultipartUploadsResult`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut page = Page::new(
            self.encoding_url,
            self.uploads.len() + self.common_prefixes.len(),
        );
        page.xml.open_root("ListMultipartUploadsResult");
        page.xml.text("Bucket", self.bucket);
        page.name("KeyMarker", self.key_marker);
        page.xml.text("UploadIdMarker", self.upload_id_marker);
        if let Some((key, upload_id)) = self.next {
            page.name("NextKeyMarker", key);
            page.xml.text("NextUploadIdMarker", upload_id);
        }
        page.name("Prefix", self.prefix);
        page.optional_name("Delimiter", self.delimiter);
        page.xml.number("MaxUploads", self.max_uploads);
        page.encoding_type();
        page.xml.boolean("IsTruncated", self.is_truncated);
        for upload in self.uploads {
            page.upload(upload);
        }
        page.common_prefixes(self.common_prefixes);
        page.xml.close("ListMultipartUploadsResult");
        page.xml.finish()
    }
}

/// A part in a list.
#[derive(Clone, Copy, Debug)]
pub struct ListedPart<'a> {
    /// The number.
    pub number: u16,
    /// When it was uploaded.
    pub last_modified: UnixMillis,
    /// The ETag without quotes.
    pub etag: &'a str,
    /// The number of plaintext bytes.
    pub size: u64,
    /// Its checksum.
    pub checksum: Option<Checksums<'a>>,
}

/// A page of ListParts.
#[derive(Clone, Copy, Debug)]
pub struct ListPartsPage<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The upload id.
    pub upload_id: &'a str,
    /// Who began the upload.
    pub owner: Owner<'a>,
    /// `STANDARD`.
    pub storage_class: &'a str,
    /// The part number marker asked for; 0 for none.
    pub part_number_marker: u64,
    /// The number of the last part of this page, if there are more.
    pub next_part_number_marker: Option<u64>,
    /// The most parts asked for.
    pub max_parts: u64,
    /// Whether there are more.
    pub is_truncated: bool,
    /// Whether `encoding-type=url` was asked for.
    pub encoding_url: bool,
    /// The checksum that the upload was begun with.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// The parts, in order.
    pub parts: &'a [ListedPart<'a>],
}

impl ListPartsPage<'_> {
    /// `ListPartsResult`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut page = Page::new(self.encoding_url, self.parts.len());
        page.xml.open_root("ListPartsResult");
        page.xml.text("Bucket", self.bucket);
        page.name("Key", self.key);
        page.xml.text("UploadId", self.upload_id);
        page.xml.owner("Initiator", &self.owner);
        page.xml.owner("Owner", &self.owner);
        page.xml.text("StorageClass", self.storage_class);
        page.xml.number("PartNumberMarker", self.part_number_marker);
        if let Some(next) = self.next_part_number_marker {
            page.xml.number("NextPartNumberMarker", next);
        }
        page.xml.number("MaxParts", self.max_parts);
        page.encoding_type();
        page.xml.boolean("IsTruncated", self.is_truncated);
        page.checksum_kind(self.checksum);
        for part in self.parts {
            page.part(part);
        }
        page.xml.close("ListPartsResult");
        page.xml.finish()
    }
}

/// A page while it is written.
struct Page {
    xml: XmlWriter,
    encoding_url: bool,
}

impl Page {
    fn new(encoding_url: bool, entries: usize) -> Self {
        Self {
            xml: XmlWriter::document(512 + entries * ENTRY_BYTES),
            encoding_url,
        }
    }

    /// A key, prefix, delimiter or marker.
    fn name(&mut self, element: &str, name: &str) {
        self.xml.open(element);
        if self.encoding_url {
            encode_into(self.xml.buffer(), name.as_bytes(), Slash::Keep);
        } else {
            self.xml.escaped(name);
        }
        self.xml.close(element);
    }

    fn optional_name(&mut self, element: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.name(element, name);
        }
    }

    fn limits(&mut self, max_keys: u64, delimiter: Option<&str>, is_truncated: bool) {
        self.xml.number("MaxKeys", max_keys);
        self.optional_name("Delimiter", delimiter);
        self.encoding_type();
        self.xml.boolean("IsTruncated", is_truncated);
    }

    fn encoding_type(&mut self) {
        if self.encoding_url {
            self.xml.text("EncodingType", "url");
        }
    }

    fn checksum_kind(&mut self, checksum: Option<(ChecksumAlgorithm, ChecksumType)>) {
        if let Some((algorithm, kind)) = checksum {
            self.xml.text("ChecksumAlgorithm", algorithm.name());
            self.xml.text("ChecksumType", kind.name());
        }
    }

    fn objects(&mut self, objects: &[ListedObject<'_>]) {
        for object in objects {
            self.xml.open("Contents");
            self.name("Key", object.key);
            self.xml.time("LastModified", object.last_modified);
            self.xml.etag(object.etag);
            self.checksum_kind(object.checksum);
            self.xml.number("Size", object.size);
            if let Some(owner) = &object.owner {
                self.xml.owner("Owner", owner);
            }
            self.xml.text("StorageClass", object.storage_class);
            self.xml.close("Contents");
        }
    }

    fn common_prefixes(&mut self, prefixes: &[&str]) {
        for prefix in prefixes {
            self.xml.open("CommonPrefixes");
            self.name("Prefix", prefix);
            self.xml.close("CommonPrefixes");
        }
    }

    fn version(&mut self, version: &ListedVersion<'_>) {
        let element = match version.kind {
            VersionKind::Version { .. } => "Version",
            VersionKind::DeleteMarker => "DeleteMarker",
        };
        self.xml.open(element);
        self.name("Key", version.key);
        self.xml.text("VersionId", version.version_id);
        self.xml.boolean("IsLatest", version.is_latest);
        self.xml.time("LastModified", version.last_modified);
        if let VersionKind::Version {
            etag,
            size,
            storage_class,
            checksum,
        } = version.kind
        {
            self.xml.etag(etag);
            self.checksum_kind(checksum);
            self.xml.number("Size", size);
            self.xml.text("StorageClass", storage_class);
        }
        self.xml.owner("Owner", &version.owner);
        self.xml.close(element);
    }

    fn upload(&mut self, upload: &ListedUpload<'_>) {
        self.xml.open("Upload");
        self.name("Key", upload.key);
        self.xml.text("UploadId", upload.upload_id);
        self.xml.owner("Initiator", &upload.owner);
        self.xml.owner("Owner", &upload.owner);
        self.xml.text("StorageClass", upload.storage_class);
        self.xml.time("Initiated", upload.initiated);
        self.checksum_kind(upload.checksum);
        self.xml.close("Upload");
    }

    fn part(&mut self, part: &ListedPart<'_>) {
        self.xml.open("Part");
        self.xml.number("PartNumber", u64::from(part.number));
        self.xml.time("LastModified", part.last_modified);
        self.xml.etag(part.etag);
        self.xml.number("Size", part.size);
        self.xml.checksum(part.checksum.as_ref());
        self.xml.close("Part");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMillis = UnixMillis(1_700_000_000_000);
    const OWNER: Owner<'static> = Owner {
        id: "o",
        display_name: "O",
    };

    fn object(key: &str) -> ListedObject<'_> {
        ListedObject {
            key,
            last_modified: AT,
            etag: "e",
            size: 7,
            storage_class: "STANDARD",
            owner: None,
            checksum: None,
        }
    }

    fn check(xml: Vec<u8>, root: &str, inner: &str) {
        let expected = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inner}</{root}>"
        );
        assert_eq!(String::from_utf8(xml).unwrap(), expected);
    }

    #[test]
    fn version_1_pages() {
        let page = ListObjectsPage {
            bucket: "b",
            prefix: "a<",
            delimiter: Some("/"),
            marker: "",
            next_marker: Some("a<c/"),
            max_keys: 2,
            is_truncated: true,
            encoding_url: false,
            objects: &[object("a<b")],
            common_prefixes: &["a<c/"],
        };
        check(
            page.to_xml(),
            "ListBucketResult",
            "<Name>b</Name><Prefix>a&lt;</Prefix><Marker></Marker><NextMarker>a&lt;c/</NextMarker>\
             <MaxKeys>2</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>\
             <Contents><Key>a&lt;b</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>\
             <ETag>&quot;e&quot;</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>\
             <CommonPrefixes><Prefix>a&lt;c/</Prefix></CommonPrefixes>",
        );
    }

    #[test]
    fn version_2_pages_with_url_encoding() {
        let mut listed = object("a b+\u{1}/é");
        listed.owner = Some(OWNER);
        listed.checksum = Some((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
        let page = ListObjectsV2Page {
            bucket: "b",
            prefix: "a b",
            delimiter: Some("/"),
            start_after: Some("a a"),
            continuation_token: Some("t1"),
            next_continuation_token: Some("t2"),
            max_keys: 1000,
            is_truncated: false,
            encoding_url: true,
            objects: &[listed],
            common_prefixes: &[],
        };
        check(
            page.to_xml(),
            "ListBucketResult",
            "<Name>b</Name><Prefix>a%20b</Prefix><ContinuationToken>t1</ContinuationToken>\
             <NextContinuationToken>t2</NextContinuationToken><StartAfter>a%20a</StartAfter>\
             <KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter>\
             <EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>\
             <Contents><Key>a%20b%2B%01/%C3%A9</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified>\
             <ETag>&quot;e&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>\
             <ChecksumType>FULL_OBJECT</ChecksumType><Size>7</Size>\
             <Owner><ID>o</ID><DisplayName>O</DisplayName></Owner>\
             <StorageClass>STANDARD</StorageClass></Contents>",
        );
    }

    #[test]
    fn versions_and_delete_markers() {
        let version = ListedVersion {
            key: "k",
            version_id: "v1",
            is_latest: false,
            last_modified: AT,
            owner: OWNER,
            kind: VersionKind::Version {
                etag: "e",
                size: 1,
                storage_class: "STANDARD",
                checksum: None,
            },
        };
        let marker = ListedVersion {
            version_id: "v2",
            is_latest: true,
            kind: VersionKind::DeleteMarker,
            ..version
        };
        let page = ListObjectVersionsPage {
            bucket: "b",
            prefix: "",
            delimiter: None,
            key_marker: "",
            version_id_marker: "",
            next: Some(("k", "v1")),
            max_keys: 2,
            is_truncated: true,
            encoding_url: false,
            versions: &[marker, version],
            common_prefixes: &[],
        };
        check(
            page.to_xml(),
            "ListVersionsResult",
            "<Name>b</Name><Prefix></Prefix><KeyMarker></KeyMarker><VersionIdMarker></VersionIdMarker>\
             <NextKeyMarker>k</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>\
             <MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated>\
             <DeleteMarker><Key>k</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2023-11-14T22:13:20.000Z</LastModified>\
             <Owner><ID>o</ID><DisplayName>O</DisplayName></Owner></DeleteMarker>\
             <Version><Key>k</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest>\
             <LastModified>2023-11-14T22:13:20.000Z</LastModified><ETag>&quot;e&quot;</ETag>\
             <Size>1</Size><StorageClass>STANDARD</StorageClass>\
             <Owner><ID>o</ID><DisplayName>O</DisplayName></Owner></Version>",
        );
    }

    #[test]
    fn uploads_and_parts() {
        let upload = ListedUpload {
            key: "k",
            upload_id: "u",
            initiated: AT,
            owner: OWNER,
            storage_class: "STANDARD",
            checksum: None,
        };
        let page = ListMultipartUploadsPage {
            bucket: "b",
            prefix: "",
            delimiter: None,
            key_marker: "",
            upload_id_marker: "",
            next: None,
            max_uploads: 1000,
            is_truncated: false,
            encoding_url: false,
            uploads: &[upload],
            common_prefixes: &[],
        };
        let people = "<Initiator><ID>o</ID><DisplayName>O</DisplayName></Initiator>\
                      <Owner><ID>o</ID><DisplayName>O</DisplayName></Owner>\
                      <StorageClass>STANDARD</StorageClass>";
        check(
            page.to_xml(),
            "ListMultipartUploadsResult",
            &format!(
                "<Bucket>b</Bucket><KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker>\
                 <Prefix></Prefix><MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated>\
                 <Upload><Key>k</Key><UploadId>u</UploadId>{people}\
                 <Initiated>2023-11-14T22:13:20.000Z</Initiated></Upload>"
            ),
        );
        let part = ListedPart {
            number: 3,
            last_modified: AT,
            etag: "e",
            size: 5,
            checksum: Some(Checksums {
                algorithm: ChecksumAlgorithm::Sha1,
                text: "x=",
                checksum_type: None,
            }),
        };
        let page = ListPartsPage {
            bucket: "b",
            key: "k",
            upload_id: "u",
            owner: OWNER,
            storage_class: "STANDARD",
            part_number_marker: 2,
            next_part_number_marker: Some(3),
            max_parts: 1,
            is_truncated: true,
            encoding_url: false,
            checksum: Some((ChecksumAlgorithm::Sha1, ChecksumType::Composite)),
            parts: &[part],
        };
        check(
            page.to_xml(),
            "ListPartsResult",
            &format!(
                "<Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>{people}\
                 <PartNumberMarker>2</PartNumberMarker><NextPartNumberMarker>3</NextPartNumberMarker>\
                 <MaxParts>1</MaxParts><IsTruncated>true</IsTruncated>\
                 <ChecksumAlgorithm>SHA1</ChecksumAlgorithm><ChecksumType>COMPOSITE</ChecksumType>\
                 <Part><PartNumber>3</PartNumber><LastModified>2023-11-14T22:13:20.000Z</LastModified>\
                 <ETag>&quot;e&quot;</ETag><Size>5</Size><ChecksumSHA1>x=</ChecksumSHA1></Part>"
            ),
        );
    }
}
