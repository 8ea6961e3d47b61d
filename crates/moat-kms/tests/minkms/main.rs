//! The MinKMS front over loopback TLS, with a client of its own: every command, what it refuses and
//! with which words, batches, paging, the log stream, and the connections that clients make.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod client;
mod commands;
mod connections;
mod refusals;
#[path = "../kes/rig.rs"]
#[allow(dead_code, reason = "its client speaks the other protocol")]
mod rig;

use client::Client;
use moat_kms_client::{ApiKey, Privilege};
use moat_types::SystemRandom;
use rig::{Credential, Http, Rig, enclave};

const DENIED: (u16, &str) = (403, "access denied: insufficient permissions");
const NO_ENCLAVE: (u16, &str) = (404, "enclave does not exist");
const ENCLAVE_EXISTS: (u16, &str) = (409, "enclave already exists");
const NO_KEY: (u16, &str) = (404, "key does not exist");
const KEY_EXISTS: (u16, &str) = (409, "key already exists");
const NO_POLICY: (u16, &str) = (404, "policy does not exist");
const NO_IDENTITY: (u16, &str) = (404, "identity does not exist");
const BAD_CIPHERTEXT: (u16, &str) = (400, "invalid ciphertext");

fn assert_refused<T: std::fmt::Debug>(result: Result<T, client::Refused>, expected: (u16, &str)) {
    let (status, message) = result.unwrap_err();
    assert_eq!((status, message.as_str()), expected);
}

async fn connect(rig: &Rig, key: &ApiKey, place: &'static str) -> Client {
    let connection = rig.connect(&Credential::of(key), Http::One).await;
    Client::new(connection, place)
}

/// The operator, in an enclave.
async fn operator(rig: &Rig, place: &'static str) -> Client {
    connect(rig, &rig.root, place).await
}

/// Someone new in an enclave.
async fn member(rig: &Rig, place: &'static str, privilege: Privilege) -> (Client, ApiKey) {
    let key = ApiKey::generate(&SystemRandom);
    let scope = moat_kms::Scope::Enclave(enclave(place));
    rig.core
        .create_identity(&rig.operator(), &scope, &key.identity(), privilege, None)
        .await
        .unwrap();
    (connect(rig, &key, place).await, key)
}
