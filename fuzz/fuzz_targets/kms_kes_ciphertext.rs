//! A ciphertext of KES, in any of its three forms.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::unversioned_ciphertext(input));
