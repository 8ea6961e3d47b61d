//! PROXY headers of both versions.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_net::proxy_protocol::{HEADER_BYTES_MAX, ParseError, encode_v1, encode_v2, parse};

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Ok(header) => {
            assert!(header.bytes <= input.len() && header.bytes <= HEADER_BYTES_MAX);
            // What lies behind the header has no say, and all of it is needed.
            assert_eq!(parse(&input[..header.bytes]), Ok(header));
            assert_eq!(
                parse(&input[..header.bytes - 1]),
                Err(ParseError::Incomplete)
            );
            for written in [encode_v1(header.addresses), encode_v2(header.addresses)] {
                let again = parse(&written).expect("what is written can be read");
                assert_eq!(again.bytes, written.len());
                assert_eq!(again.addresses.is_some(), header.addresses.is_some());
            }
        }
        Err(ParseError::Incomplete) => assert!(input.len() < HEADER_BYTES_MAX),
        Err(_) => {}
    }
});
