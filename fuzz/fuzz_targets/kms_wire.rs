//! JSON bodies of the native API, both directions: what is read and written reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_kms_client::wire::{
    AssignPolicy, Audit, Ciphertext, CreateEnclave, CreateIdentity, CreateKey, DataKey, Decrypt,
    EnclaveInfo, Encrypt, EpochLease, GenerateDataKey, GenerateEpoch, IdentityInfo, KeyInfo,
    KeyVersionInfo, Listing, Nothing, OpenEpoch, Plaintext, PolicyDocument, PolicyInfo, Version,
};
use moat_kms_client::{ApiKey, Identity, Privilege, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: DeserializeOwned + Serialize + PartialEq>(input: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(input) {
        let written = serde_json::to_vec(&value).expect("plain data");
        let again = serde_json::from_slice::<T>(&written).expect("what was written reads back");
        assert!(again == value);
    }
}

fuzz_target!(|input: &[u8]| {
    check::<AssignPolicy>(input);
    check::<Audit>(input);
    check::<Ciphertext>(input);
    check::<CreateEnclave>(input);
    check::<CreateIdentity>(input);
    check::<CreateKey>(input);
    check::<DataKey>(input);
    check::<Decrypt>(input);
    check::<EnclaveInfo>(input);
    check::<Encrypt>(input);
    check::<EpochLease>(input);
    check::<GenerateDataKey>(input);
    check::<GenerateEpoch>(input);
    check::<IdentityInfo>(input);
    check::<KeyInfo>(input);
    check::<KeyVersionInfo>(input);
    check::<Listing<KeyInfo>>(input);
    check::<Nothing>(input);
    check::<OpenEpoch>(input);
    check::<Plaintext>(input);
    check::<PolicyDocument>(input);
    check::<PolicyInfo>(input);
    check::<Problem>(input);
    check::<Version>(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = ApiKey::parse(text);
        let _ = Privilege::parse(text);
        if let Some(identity) = Identity::parse(text) {
            assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        }
    }
});
