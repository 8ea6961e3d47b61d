//! PKCS#12 keystores.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_pki::pkcs12;
use moat_types::SecretString;

fuzz_target!(|input: &[u8]| {
    let _ = pkcs12::read(input, &SecretString::new("changeit".to_owned()));
});
