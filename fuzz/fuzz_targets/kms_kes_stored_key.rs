//! A key as KES stores it, and as MinIO has it in its environment.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::kes_stored_key(input));
