//! The text of an HSM key.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::hsm_key(input));
