//! CA, certificates, keystore formats.
