//! Sign and verify, over paths, queries and headers as nasty as clients can make them: what was
//! signed is accepted, and any single change to what a signature covers is refused.
#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test may"
)]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use moat_s3::sigv4::{
    Authentication, Credentials, PayloadHash, RequestParts, SignedHeaders, Signer, SigningKey,
};
use moat_s3::uri::{Slash, encode};
use moat_types::{SecretString, UnixMillis};
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

#[derive(Clone, Debug)]
struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

fn signer(secret: &str) -> Signer {
    Signer::new(
        Credentials {
            access_key_id: "access/key=1".to_owned(),
            secret_access_key: SecretString::new(secret.to_owned()),
            session_token: None,
        },
        "eu-1",
        "s3",
    )
    .with_signed_headers(SignedHeaders::All)
}

fn accepted(sent: &Sent, secret: &str) -> bool {
    let request = RequestParts::new(&sent.method, &sent.uri, &sent.headers);
    let claim = match Authentication::parse(&request) {
        Ok(Authentication::Header(claim) | Authentication::Presigned(claim)) => claim,
        _ => return false,
    };
    let secret = SecretString::new(secret.to_owned());
    let key = SigningKey::derive(&secret, &claim.date, &claim.region, &claim.service);
    claim.verify(&request, &key, NOW).is_ok()
}

/// Keys with everything that breaks naive canonicalisation.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9/._~%+ -]{0,24}",
        "\\PC{0,12}",
        Just("//a/.././b//".to_owned()),
        Just("100% + 1%2F2".to_owned()),
    ]
}

fn parameters() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    let parameter = ("[a-zA-Z-]{1,8}", proptest::option::of("\\PC{0,8}"));
    proptest::collection::vec(parameter, 0..5)
}

fn header_list() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        "x-amz-meta-[a-z0-9]{1,6}",
        Just("user-agent".to_owned()),
        Just("amz-sdk-request".to_owned()),
        Just("referer".to_owned()),
        Just("content-length".to_owned()),
        Just("expect".to_owned()),
    ];
    proptest::collection::vec((name, "[ -~]{0,16}"), 0..6)
}

prop_compose! {
    fn request()(
        method in prop_oneof![Just(Method::GET), Just(Method::PUT), Just(Method::DELETE)],
        key in key(),
        parameters in parameters(),
        list in header_list(),
    ) -> Sent {
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name}={}", encode(value.as_bytes(), Slash::Encode)),
                None => name.clone(),
            })
            .collect();
        let path = encode(key.as_bytes(), Slash::Keep);
        let uri = format!("http://host.example:9000/bucket/{path}?{}", query.join("&"));
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("names are tokens"),
                HeaderValue::from_str(&value).expect("values are ASCII"),
            );
        }
        Sent { method, uri: uri.parse().expect("the URI is encoded"), headers }
    }
}

fn signed(mut sent: Sent, payload: PayloadHash) -> Sent {
    signer("secret")
        .sign(&sent.method, &sent.uri, &mut sent.headers, payload, NOW)
        .expect("the request can be signed");
    sent
}

fn with_uri(sent: &Sent, uri: String) -> Sent {
    Sent {
        uri: uri.parse().expect("still a URI"),
        ..sent.clone()
    }
}

proptest! {
    #[test]
    fn what_was_signed_is_accepted(sent in request(), hash in any::<[u8; 32]>()) {
        for payload in [
            PayloadHash::Sha256(hash),
            PayloadHash::Unsigned,
            PayloadHash::StreamingSigned,
            PayloadHash::StreamingUnsignedTrailer,
        ] {
            let sent = signed(sent.clone(), payload);
            prop_assert!(accepted(&sent, "secret"));
            prop_assert!(!accepted(&sent, "secres"));
        }
    }

    #[test]
    fn another_method_path_or_query_is_refused(sent in request(), extra in "[a-z]{1,4}") {
        let sent = signed(sent, PayloadHash::Unsigned);
        let posted = Sent { method: Method::POST, ..sent.clone() };
        prop_assert!(!accepted(&posted, "secret"));
        let uri = sent.uri.to_string();
        let longer_path = uri.replacen('?', &format!("{extra}?"), 1);
        prop_assert!(!accepted(&with_uri(&sent, longer_path), "secret"));
        let more_query = format!("{uri}&{extra}");
        prop_assert!(!accepted(&with_uri(&sent, more_query), "secret"));
        let other_bucket = uri.replacen("/bucket/", "/buckets/", 1);
        prop_assert!(!accepted(&with_uri(&sent, other_bucket), "secret"));
    }

    #[test]
    fn another_header_value_is_refused(sent in request(), which in any::<prop::sample::Index>()) {
        let sent = signed(sent, PayloadHash::Unsigned);
        let names: Vec<HeaderName> = sent.headers.keys().cloned().collect();
        let name = which.get(&names).clone();
        let mut changed = sent.clone();
        changed.headers.append(name, HeaderValue::from_static("2"));
        prop_assert!(!accepted(&changed, "secret"));
    }

    #[test]
    fn a_new_amz_header_is_refused(sent in request()) {
        let mut sent = signed(sent, PayloadHash::Unsigned);
        prop_assume!(!sent.headers.contains_key("x-amz-acl"));
        sent.headers.insert("x-amz-acl", HeaderValue::from_static("public-read"));
        prop_assert!(!accepted(&sent, "secret"));
        sent.headers.remove("x-amz-acl");
        sent.headers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        prop_assert!(accepted(&sent, "secret"), "unsigned headers of proxies change nothing");
    }

    #[test]
    fn another_payload_hash_is_refused(sent in request(), hash in any::<[u8; 32]>(), bit in 0usize..256) {
        let mut sent = signed(sent, PayloadHash::Sha256(hash));
        let mut other = hash;
        other[bit / 8] ^= 1 << (bit % 8);
        let text = PayloadHash::Sha256(other).to_text();
        sent.headers.insert("x-amz-content-sha256", HeaderValue::from_str(&text).expect("hex"));
        prop_assert!(!accepted(&sent, "secret"));
    }

    #[test]
    fn presigned_urls_round_trip_and_bind_what_they_name(sent in request(), extra in "[a-z]{1,4}") {
        let headers = HeaderMap::new();
        let url = signer("secret")
            .presign(&sent.method, &sent.uri, &headers, 60, NOW)
            .expect("the request can be presigned");
        let presigned = Sent { uri: url.parse().expect("a URI"), method: sent.method, headers };
        prop_assert!(accepted(&presigned, "secret"));
        prop_assert!(!accepted(&presigned, "other"));
        let more_query = with_uri(&presigned, format!("{url}&{extra}=1"));
        prop_assert!(!accepted(&more_query, "secret"));
        let longer_path = with_uri(&presigned, url.replacen('?', &format!("{extra}?"), 1));
        prop_assert!(!accepted(&longer_path, "secret"));
    }

    #[test]
    fn the_parser_takes_any_header(text in "\\PC{0,200}", query in "[ -~&&[^ #<>\"`{}|\\\\^]]{0,80}") {
        let Ok(uri) = format!("/k?{query}").parse::<Uri>() else { return Ok(()) };
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert("authorization", value);
        }
        let _ = Authentication::parse(&RequestParts::new(&Method::GET, &uri, &headers));
    }
}

#[test]
fn a_decoded_slash_in_the_signature_of_an_encoded_one_is_accepted() {
    // Clients that sign the decoded path sign a slash where they send %2F.
    let decoded: Uri = "http://h/b/a/c".parse().unwrap();
    let encoded: Uri = "http://h/b/a%2Fc".parse().unwrap();
    let mut headers = HeaderMap::new();
    signer("secret")
        .sign(
            &Method::GET,
            &decoded,
            &mut headers,
            PayloadHash::Unsigned,
            NOW,
        )
        .unwrap();
    let sent = Sent {
        method: Method::GET,
        uri: encoded,
        headers,
    };
    assert!(accepted(&sent, "secret"));
}
