//! Signatures: any request is parsed, and what parses is verified.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_fuzz::{NOW, Request, secret};
use moat_s3::request::{Address, BaseDomains, Hoisting, Query};
use moat_s3::sigv4::{Authentication, RequestParts, SigningKey};

fuzz_target!(|input: &[u8]| {
    let Some(mut request) = Request::parse(input) else {
        return;
    };
    let parts = RequestParts::new(&request.method, &request.uri, &request.headers);
    let hoisting = match Authentication::parse(&parts) {
        Ok(Authentication::Header(claim)) => {
            let key = SigningKey::derive(&secret(), &claim.date, &claim.region, &claim.service);
            let _ = claim.verify(&parts, &key, NOW);
            return;
        }
        Ok(Authentication::Presigned(claim)) => {
            let key = SigningKey::derive(&secret(), &claim.date, &claim.region, &claim.service);
            let _ = claim.verify(&parts, &key, NOW);
            Hoisting::Version4
        }
        Ok(Authentication::PresignedV2(claim)) => {
            let domains = BaseDomains::new(["s3.local"]);
            let address = Address::parse(parts.host, parts.path, &domains);
            let bucket = address.as_ref().ok().and_then(Address::host_bucket);
            let _ = claim.verify(&parts, bucket, &secret(), NOW);
            Hoisting::Version2
        }
        Ok(Authentication::Anonymous) | Err(_) => return,
    };
    let query =
        Query::parse(request.uri.query().unwrap_or_default()).expect("it was parsed before");
    let sent = request.headers.clone();
    hoisting.restore(&query, &mut request.headers);
    for name in sent.keys() {
        assert!(sent.get_all(name).iter().eq(request.headers.get_all(name)));
    }
});
