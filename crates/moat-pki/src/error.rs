//! Everything that can go wrong with a certificate or a keystore.

/// Why a certificate, key or keystore could not be made or read. Messages never hold key material.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is neither a DNS name nor an IP address.
    #[error("{text:?} is neither a DNS name nor an IP address")]
    Name {
        /// What was given.
        text: String,
    },
    /// The private key could not be generated.
    #[error("a private key could not be generated: {source}")]
    Generate {
        /// The library's reason.
        source: rcgen::Error,
    },
    /// The private key is damaged, or of a kind that is not supported.
    #[error(
        "the private key is not an unencrypted PKCS#8 key of a supported kind (ECDSA P-256, P-384 or RSA)"
    )]
    PrivateKey,
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {subject}")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// The certificate may not sign others.
    #[error("the certificate of {subject} is not a CA")]
    NotACa {
        /// The certificate's subject.
        subject: String,
    },
    /// A certificate is not valid X.509.
    #[error("a certificate can't be read: {reason}")]
    Certificate {
        /// What is wrong.
        reason: String,
    },
    /// A text holds no PEM section of the wanted kind, or a damaged one.
    #[error("no usable PEM section of kind {wanted}: {reason}")]
    Pem {
        /// The kind that was looked for.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A certificate could not be signed.
    #[error("the certificate of {subject} could not be signed: {source}")]
    Sign {
        /// The subject asked for.
        subject: String,
        /// The library's reason.
        source: rcgen::Error,
    },
    /// The password does not open the keystore, or the keystore was changed.
    #[error("the {format} keystore does not open: wrong password, or the file is damaged")]
    WrongPassword {
        /// PKCS#12 or JKS.
        format: &'static str,
    },
    /// The keystore breaks its format.
    #[error("the {format} keystore is malformed: {reason}")]
    Keystore {
        /// PKCS#12 or JKS.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
}
