//! A path pattern of a KES policy.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::policy_path(input));
