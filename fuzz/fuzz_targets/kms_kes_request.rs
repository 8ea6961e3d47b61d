//! Path and body of a KES request.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::kes_request(input));
