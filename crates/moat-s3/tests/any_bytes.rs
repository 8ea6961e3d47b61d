//! Every parser takes any bytes without a panic, and what writers write readers read back. The
//! fuzz targets go deeper; this keeps their properties in every test run.

#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test may"
)]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use moat_s3::checksum::{ChecksumAlgorithm, ChecksumRequest, ChecksumValue, Expected};
use moat_s3::request::{
    Address, BaseDomains, Conditions, CopySource, CustomerKey, EtagCondition, KmsKeyId, Operation,
    Query, SseRequest, UserMetadata, parse_copy_source_range, parse_range, sse_context_parse,
};
use moat_s3::sigv4::PayloadHash;
use moat_s3::uri::{Slash, decode, encode};
use moat_s3::xml::{
    ListObjectsV2Page, ListedObject, XmlWriter, read_bucket_encryption,
    read_complete_multipart_upload, read_create_bucket_configuration, read_delete,
    read_versioning_configuration,
};
use moat_types::UnixMillis;
use proptest::prelude::*;

/// Text with what markup is made of.
fn markup() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("<Delete>".to_owned()),
        Just("</Delete>".to_owned()),
        Just("<Object><Key>".to_owned()),
        Just("</Key></Object>".to_owned()),
        Just("<CompleteMultipartUpload>".to_owned()),
        Just("<Part><PartNumber>1</PartNumber>".to_owned()),
        Just("<![CDATA[".to_owned()),
        Just("]]>".to_owned()),
        Just("<!DOCTYPE x [".to_owned()),
        Just("<!--".to_owned()),
        Just("-->".to_owned()),
        Just("<?xml".to_owned()),
        Just("?>".to_owned()),
        Just("&amp;".to_owned()),
        Just("&#x10FFFF;".to_owned()),
        Just("&#xD800;".to_owned()),
        Just("&lol;".to_owned()),
        "[ -~]{0,6}",
        "\\PC{0,3}",
    ];
    proptest::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat().into_bytes())
}

/// A key with control characters, markup, spaces at the ends, and any other character.
fn key() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        (0u8..0x20).prop_map(char::from),
        proptest::sample::select(vec![
            '<', '>', '&', '"', '\'', ' ', ']', '%', '+', '\u{fffe}'
        ]),
        any::<char>(),
    ];
    proptest::collection::vec(character, 1..12).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn xml_readers_take_any_bytes(
        body in prop_oneof![markup(), proptest::collection::vec(any::<u8>(), 0..64)],
    ) {
        let _ = read_delete(&body);
        let _ = read_complete_multipart_upload(&body);
        let _ = read_create_bucket_configuration(&body);
        let _ = read_bucket_encryption(&body);
        let _ = read_versioning_configuration(&body);
    }

    #[test]
    fn every_key_survives_xml(key in key()) {
        let mut xml = XmlWriter::document(64);
        xml.open_root("Delete");
        xml.open("Object");
        xml.text("Key", &key);
        xml.close("Object");
        xml.close("Delete");
        let delete = read_delete(&xml.finish()).expect("what was written is well formed");
        prop_assert_eq!(&delete.objects[0].key, &key);
    }

    #[test]
    fn every_key_survives_url_encoding_in_a_list(key in key()) {
        let object = ListedObject {
            key: &key,
            last_modified: UnixMillis(0),
            etag: "e",
            size: 0,
            storage_class: "STANDARD",
            owner: None,
            checksum: None,
        };
        let page = ListObjectsV2Page {
            bucket: "b",
            prefix: "",
            delimiter: None,
            start_after: None,
            continuation_token: None,
            next_continuation_token: None,
            max_keys: 1,
            is_truncated: false,
            encoding_url: true,
            objects: &[object],
            common_prefixes: &[],
        };
        let xml = String::from_utf8(page.to_xml()).expect("ASCII");
        let (_, rest) = xml.split_once("<Key>").expect("a key");
        let (encoded, _) = rest.split_once("</Key>").expect("its end");
        prop_assert_eq!(&*decode(encoded.as_bytes()), key.as_bytes());
    }

    #[test]
    fn addresses_keep_every_key(key in key()) {
        let path = format!("/bucket/{}", encode(key.as_bytes(), Slash::Keep));
        let address = Address::parse("h", &path, &BaseDomains::default()).expect("UTF-8");
        prop_assert_eq!(address.key.as_deref(), Some(&*key));
        let source = format!("bucket/{}", encode(key.as_bytes(), Slash::Encode));
        let source = CopySource::parse(&source).expect("bucket and key");
        prop_assert_eq!(source.key, key);
    }

    #[test]
    fn request_parsers_take_any_text(
        text in prop_oneof!["\\PC{0,40}", "[ -~]{0,40}", "(bytes=|W/|\\*|\"|,|-|[0-9]|%|/|\\?|&|=|:|arn:aws:kms:|versionId){0,12}"],
        method in "[A-Z]{1,6}",
    ) {
        let _ = parse_range(&text).map(|range| range.resolve(100));
        let _ = parse_copy_source_range(&text, 100);
        let _ = EtagCondition::parse(&text).matches_strongly("e");
        let _ = CopySource::parse(&text);
        let _ = KmsKeyId::parse(&text);
        let _ = sse_context_parse(&text);
        let _ = PayloadHash::parse(&text);
        for algorithm in ChecksumAlgorithm::ALL {
            let _ = ChecksumValue::parse(algorithm, &text);
        }
        let domains = BaseDomains::new(["s3.local"]);
        let method: Method = method.parse().expect("letters");
        let headers = HeaderMap::new();
        for host in ["h", &text] {
            if let (Ok(address), Ok(query)) = (Address::parse(host, &text, &domains), Query::parse(&text)) {
                let _ = Operation::resolve(&method, &address, &query, &headers);
            }
        }
    }

    #[test]
    fn header_parsers_take_any_value(
        name in proptest::sample::select(vec![
            "if-match", "if-modified-since", "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-customer-key", "x-amz-server-side-encryption-context",
            "x-amz-checksum-crc32", "x-amz-trailer", "x-amz-sdk-checksum-algorithm",
            "content-md5", "x-amz-decoded-content-length", "x-amz-copy-source", "x-amz-meta-a",
        ]),
        value in proptest::collection::vec(any::<u8>(), 0..24),
    ) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), value);
        let _ = Conditions::from_headers(&headers);
        let _ = SseRequest::from_write_headers(&headers);
        let _ = CustomerKey::from_headers(&headers);
        let _ = ChecksumRequest::from_headers(&headers);
        let _ = Expected::from_headers(&headers, PayloadHash::StreamingUnsignedTrailer);
        let _ = CopySource::from_headers(&headers);
        let _ = UserMetadata::from_headers(&headers);
    }
}
