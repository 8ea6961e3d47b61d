//! Opened rows of every kind.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::row(input));
