//! The three date forms: what parses is written and parses to the same second.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_s3::time::{amz_date, http_date, iso_millis, parse_amz_date, parse_http_date, parse_iso};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(at) = parse_amz_date(text) {
        assert_eq!(parse_amz_date(amz_date(at).as_str()), Some(at));
    }
    if let Some(at) = parse_http_date(text) {
        assert_eq!(parse_http_date(http_date(at).as_str()), Some(at));
    }
    if let Some(at) = parse_iso(text) {
        assert_eq!(parse_iso(iso_millis(at).as_str()), Some(at));
    }
});
