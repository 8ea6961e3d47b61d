//! Endpoints written as ranges, with their options.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_proxy::config::Network;
use moat_proxy::ellipses::{EXPANSION_MAX, expand};
use moat_proxy::Upstream;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(all) = expand(text) {
        assert!(!all.is_empty() && all.len() <= EXPANSION_MAX);
        // Nothing that is left is a range, so once is enough.
        for one in &all {
            assert_eq!(expand(one).as_deref(), Ok(std::slice::from_ref(one)));
        }
    }
    if let Ok(site) = Upstream::parse_site(text) {
        for upstream in site {
            assert!(upstream.weight > 0);
        }
    }
    if let Some(network) = Network::parse(text) {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        assert!(address.is_some_and(|address: std::net::IpAddr| network.contains(address.to_canonical())));
    }
});
