//! Certificates as pure data: a CA, the leaves it signs, and the containers that clients read
//! (PEM, PKCS#12, JKS).
//!
//! Bytes come in and bytes go out. Knows nothing about files, sockets or configuration; time
//! comes through [`moat_types::Clock`] and serial numbers through [`moat_types::Random`]. Private
//! keys and the salts inside PKCS#12 are drawn by the libraries below, which have no port for a
//! source of randomness.
//!
//! - [`authority`]: [`CertificateAuthority`] creates or loads a CA and issues leaves.
//! - [`private_key`]: [`PrivateKey`], always PKCS#8.
//! - [`name`]: [`SubjectName`], a DNS name or an IP address, and how a host matches it.
//! - [`inspect`]: [`CertificateInfo`], what a certificate says, and whether it needs renewal.
//! - [`pem`], [`pkcs12`], [`jks`]: containers, written and read.

pub mod authority;
pub mod inspect;
pub mod jks;
pub mod name;
pub mod pem;
pub mod pkcs12;
pub mod private_key;

mod error;
mod store;

pub use authority::{
    CA_VALIDITY, CaRequest, CertificateAuthority, Issued, LEAF_VALIDITY, LeafRequest, NameScope,
    Usage,
};
pub use error::Error;
pub use inspect::{CertificateInfo, needs_renewal};
pub use name::SubjectName;
pub use private_key::{KeyAlgorithm, PrivateKey};
pub use store::{KeyEntry, Keystore, TrustedEntry};
