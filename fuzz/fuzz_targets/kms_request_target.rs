//! Paths and queries of the native API.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::request_target(input));
