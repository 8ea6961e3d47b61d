//! JKS keystores. The digest at the end is made right, else every change would stop there.

#![no_main]

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use libfuzzer_sys::fuzz_target;
use moat_pki::jks;
use moat_types::SecretString;

const PASSWORD: &str = "changeit";
const DIGEST_BYTES: usize = 20;

fuzz_target!(|input: &[u8]| {
    let password = SecretString::new(PASSWORD.to_owned());
    let _ = jks::read(input, &password);
    let Some(length) = input.len().checked_sub(DIGEST_BYTES) else {
        return;
    };
    let body = &input[..length];
    let mut digested: Vec<u8> = PASSWORD.bytes().flat_map(|b| [0, b]).collect();
    digested.extend_from_slice(b"Mighty Aphrodite");
    digested.extend_from_slice(body);
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &digested);
    let _ = jks::read(&[body, digest.as_ref()].concat(), &password);
});
