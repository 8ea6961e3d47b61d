//! Bodies of the MinKMS protocol: frames, and the messages in them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| moat_kms::fuzzing::minkms_request(input));
