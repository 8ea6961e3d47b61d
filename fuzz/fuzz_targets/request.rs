//! Everything that is read from the head of a request besides its signature.

#![no_main]

use std::fmt::Debug;

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use moat_fuzz::Request;
use moat_s3::checksum::{ChecksumRequest, Expected};
use moat_s3::chunked::AnnouncedTrailers;
use moat_s3::request::{
    Address, BaseDomains, Conditions, CopyDirective, CopySource, CustomerKey, ObjectFacts,
    Operation, Query, SseRequest, UserMetadata, has_sse_headers, parse_copy_source_range,
    parse_range,
};
use moat_s3::sigv4::PayloadHash;
use moat_types::UnixMillis;

const SIZE: u64 = 1000;

fuzz_target!(|input: &[u8]| {
    let Some(request) = Request::parse(input) else {
        return;
    };
    let headers = &request.headers;
    target(&request);
    range(headers);
    conditions(headers);
    checksums(headers);
    let _ = CopySource::from_headers(headers);
    let _ = CopyDirective::of_metadata(headers);
    let _ = CopyDirective::of_tagging(headers);
    let _ = CustomerKey::from_copy_source_headers(headers);
    if let Ok(Some(_)) = CustomerKey::from_headers(headers) {
        assert!(CustomerKey::is_in(headers));
    }
    if SseRequest::from_write_headers(headers).is_err() {
        assert!(has_sse_headers(headers));
    }
    let _ = SseRequest::customer_key_of_read(headers);
    if let Ok(metadata) = UserMetadata::from_headers(headers) {
        let entries = metadata.iter().map(|(n, v)| (n.to_owned(), v.to_vec()));
        let again = UserMetadata::from_entries(entries);
        let mut written = (HeaderMap::new(), HeaderMap::new());
        metadata.write_headers(&mut written.0);
        again.write_headers(&mut written.1);
        assert_eq!(written.0, written.1);
    }
});

fn target(request: &Request) {
    let host = request.headers.get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or("h");
    let domains = BaseDomains::new(["s3.local"]);
    let query = Query::parse(request.uri.query().unwrap_or_default());
    let address = Address::parse(host, request.uri.path(), &domains);
    if let (Ok(address), Ok(query)) = (address, query) {
        let found = Operation::resolve(&request.method, &address, &query, &request.headers);
        quiet(found.map(|operation| (operation.name(), operation.absent_configuration())));
    }
}

fn range(headers: &HeaderMap) {
    let Some(text) = headers.get("range").and_then(|value| value.to_str().ok()) else {
        return;
    };
    if let Some(Ok(range)) = parse_range(text).map(|range| range.resolve(SIZE)) {
        assert!(range.start < range.end && range.end <= SIZE);
    }
    if let Ok(range) = parse_copy_source_range(text, SIZE) {
        assert!(range.start < range.end && range.end <= SIZE);
    }
}

fn conditions(headers: &HeaderMap) {
    let facts = ObjectFacts {
        etag: "e",
        last_modified: UnixMillis(1_369_353_600_000),
    };
    if let Ok(conditions) = Conditions::from_headers(headers) {
        quiet(conditions.for_read(facts));
        quiet(conditions.for_write(Some(facts)));
        quiet(conditions.for_write(None));
    }
    if let Ok(conditions) = Conditions::from_copy_source_headers(headers) {
        quiet(conditions.for_copy_source(facts));
    }
}

fn checksums(headers: &HeaderMap) {
    let _ = ChecksumRequest::from_headers(headers);
    let _ = AnnouncedTrailers::from_headers(headers);
    for payload in [PayloadHash::Unsigned, PayloadHash::StreamingUnsignedTrailer] {
        let _ = Expected::from_headers(headers, payload);
    }
}

/// A value that is only there to be made.
fn quiet(value: impl Debug) {
    std::hint::black_box(value);
}
