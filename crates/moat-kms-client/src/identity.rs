//! Who a caller is: the hash of a public key, an API key that carries the private half, and the
//! privilege that the key manager gives.
//!
//! The forms are those of MinKMS, so that API keys made for one work with the other: an identity
//! is `h1:` and the base64url SHA-256 of the certificate's SubjectPublicKeyInfo; an API key is
//! `k1:` and the base64url of a 32-byte Ed25519 seed. KES has the same hash and the same seed in
//! other clothes (64 hex digits; `kes:v1:` and the base64 of a zero byte and the seed), so one key
//! serves on every wire; both forms are read everywhere.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use moat_types::{Clock, Random, SecretBytes, SecretString};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::curve::Curve;

/// The fingerprint of a client's public key. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The length of the text form.
    pub const TEXT_BYTES: usize = 46;

    /// The identity of a client whose SubjectPublicKeyInfo hashes (SHA-256) to this.
    pub const fn from_spki_sha256(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Parses the text form, or that of KES; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(encoded) = text.strip_prefix("h1:") else {
            return Self::parse_kes(text);
        };
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    fn parse_kes(text: &str) -> Option<Self> {
        let digit = |b: u8| char::from(b).to_digit(16);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut hash = [0; 32];
        if !rest.is_empty() || pairs.len() != hash.len() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        Some(Self(hash))
    }

    /// The form of KES: 64 hex digits, lower case.
    pub fn to_kes_text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text form, as `Display` has it.
    pub fn to_ascii(&self) -> [u8; Self::TEXT_BYTES] {
        let mut text = *b"h1:0123456789012345678901234567890123456789012";
        let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text[3..]);
        debug_assert_eq!(length, Ok(43));
        text
    }

    /// The hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_ascii()).expect("base64url is ASCII"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Identity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("an identity is h1: and 43 characters of base64url")
        })
    }
}

/// What an identity may do before any policy is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Privilege {
    /// Everything, in every enclave.
    SysAdmin,
    /// Everything inside its enclave.
    Admin,
    /// What its policy allows.
    User,
}

impl Privilege {
    /// Parses the names that the wires use.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::SysAdmin, Self::Admin, Self::User]
            .into_iter()
            .find(|privilege| privilege.as_str().eq_ignore_ascii_case(text))
    }

    /// The name that the wires use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SysAdmin => "SysAdmin",
            Self::Admin => "Admin",
            Self::User => "User",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an API key or certificate could not be used. Says nothing of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The text is not an API key.
    #[error(
        "an API key is k1: and 43 characters of base64url, k2: and 43, 64 or 88, or kes:v1: and 44 of base64"
    )]
    ApiKeyForm,
    /// The certificate for the key could not be made.
    #[error("the client certificate could not be made: {0}")]
    Certificate(String),
}

/// DER before the public key in an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const SPKI_ED25519: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// DER before the seed in an Ed25519 PKCS#8 key, version 1 (RFC 8410).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const SEED_BYTES: usize = 32;
/// What KES API keys begin with, and the kind of key that they hold.
const KES_PREFIX: &str = "kes:v1:";
const KES_ED25519: u8 = 0;
/// How long a client certificate lasts. Key managers of this family ignore its end, but other
/// software shows it; 90 days is what the Go client writes.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far back it begins, for a server whose clock is behind.
const CERTIFICATE_BACKDATE: Duration = Duration::from_secs(3600);

/// An API key: an Ed25519 seed (`k1:`), or the private half of an ECDSA key (`k2:`), as MinKMS
/// draws them. Its bytes are zeroized when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    secret: SecretBytes,
    /// `None` for Ed25519.
    curve: Option<&'static Curve>,
}

impl ApiKey {
    /// Draws a new key.
    pub fn generate(random: &dyn Random) -> Self {
        let mut seed = vec![0; SEED_BYTES];
        random.fill(&mut seed);
        Self::ed25519(SecretBytes::new(seed))
    }

    const fn ed25519(secret: SecretBytes) -> Self {
        Self {
            secret,
            curve: None,
        }
    }

    /// Parses `k1:...`, `k2:...` or `kes:v1:...`; white space around it is ignored, as keys come
    /// out of files.
    ///
    /// # Errors
    /// `CredentialError` if it is no key.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        let text = text.trim();
        if let Some(encoded) = text.strip_prefix("k2:") {
            return Self::parse_ecdsa(encoded);
        }
        let seed = match text.strip_prefix(KES_PREFIX) {
            Some(encoded) => parse_kes_seed(encoded)?,
            None => {
                let encoded = text
                    .strip_prefix("k1:")
                    .ok_or(CredentialError::ApiKeyForm)?;
                let seed = URL_SAFE_NO_PAD
                    .decode(encoded)
                    .map_err(|_| CredentialError::ApiKeyForm)?;
                SecretBytes::new(seed)
            }
        };
        if seed.expose().len() != SEED_BYTES {
            return Err(CredentialError::ApiKeyForm);
        }
        Ok(Self::ed25519(seed))
    }

    fn parse_ecdsa(encoded: &str) -> Result<Self, CredentialError> {
        let form = CredentialError::ApiKeyForm;
        let secret = URL_SAFE_NO_PAD.decode(encoded).map(SecretBytes::new);
        let secret = secret.map_err(|_| form.clone())?;
        let curve = Curve::of_secret(&secret).ok_or(form)?;
        Ok(Self {
            secret,
            curve: Some(curve),
        })
    }

    /// The text form, to be shown once to whoever asked for the key.
    pub fn to_text(&self) -> SecretString {
        let kind = if self.curve.is_some() { "k2" } else { "k1" };
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.expose()));
        SecretString::new(format!("{kind}:{}", *encoded))
    }

    /// The form of KES, as `MINIO_KMS_KES_API_KEY` takes it. KES has none for ECDSA keys, which
    /// keep their own.
    pub fn to_kes_text(&self) -> SecretString {
        if self.curve.is_some() {
            return self.to_text();
        }
        let mut typed = Zeroizing::new(vec![KES_ED25519]);
        typed.extend_from_slice(self.secret.expose());
        let encoded = Zeroizing::new(STANDARD.encode(&*typed));
        SecretString::new(format!("{KES_PREFIX}{}", *encoded))
    }

    /// The identity that a server sees when this key is used.
    pub fn identity(&self) -> Identity {
        let spki = match self.curve {
            Some(curve) => curve.spki(&self.secret),
            None => [&SPKI_ED25519, self.key_pair().public_key().as_ref()].concat(),
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &spki).as_ref());
        Identity(hash)
    }

    /// Makes the self-signed client certificate (CN = identity, client use only) and its key.
    ///
    /// # Errors
    /// `CredentialError::Certificate` if the certificate can't be encoded or signed.
    pub fn to_certificate(
        &self,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CredentialError> {
        let fault = |e: rcgen::Error| CredentialError::Certificate(e.to_string());
        let pkcs8 = match self.curve {
            Some(curve) => curve.to_pkcs8(&self.secret),
            None => self.to_pkcs8(),
        };
        let algorithm = self
            .curve
            .map_or(&rcgen::PKCS_ED25519, |curve| curve.certified);
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8.as_slice()),
            algorithm,
        )
        .map_err(fault)?;
        let certificate = self
            .certificate_params(clock, random)
            .self_signed(&key)
            .map_err(fault)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        Ok((certificate.der().clone(), key))
    }

    fn certificate_params(
        &self,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> rcgen::CertificateParams {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, self.identity().to_string());
        let mut serial = [0; 16];
        random.fill(&mut serial);
        // RFC 5280 wants a positive number that is not zero.
        serial[0] = (serial[0] & 0x7f) | 0x40;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
        let now = Duration::from_secs(u64::try_from(clock.now().seconds()).unwrap_or(0));
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(CERTIFICATE_BACKDATE);
        params.not_after = epoch + now + CERTIFICATE_LIFETIME;
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_ED25519.len() + SEED_BYTES));
        der.extend_from_slice(&PKCS8_ED25519);
        der.extend_from_slice(self.secret.expose());
        der
    }

    fn key_pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(self.secret.expose()).expect("a seed has 32 bytes")
    }
}

/// The seed of a KES API key, which stands behind a byte for the kind of key.
fn parse_kes_seed(encoded: &str) -> Result<SecretBytes, CredentialError> {
    let typed = STANDARD.decode(encoded).map(Zeroizing::new);
    match typed.as_deref().map(Vec::as_slice) {
        Ok([KES_ED25519, seed @ ..]) => Ok(SecretBytes::new(seed.to_vec())),
        _ => Err(CredentialError::ApiKeyForm),
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use moat_types::{SystemClock, SystemRandom};

    use super::*;

    #[test]
    fn api_keys_give_the_published_identities() {
        for (key, identity) in [
            (
                "k1:xZnpcYtPdVMNLBBRaUO5HPEoK_jVrcc3MWR8BshkjJw",
                "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0",
            ),
            (
                "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
                "h1:oFCDfYUHBYLM9zlLCYiEfMMSy4glm4lImfbyOc8XkaU",
            ),
            (
                "k2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
                "h1:qPDLDm2YqNmz2tOtZplAjSBFA3PYtU2NYVmst6Pp6lg",
            ),
        ] {
            let parsed = ApiKey::parse(key).unwrap();
            assert_eq!(parsed.identity().to_string(), identity);
            assert_eq!(parsed.to_text().expose(), key);
            assert_eq!(Identity::parse(identity), Some(parsed.identity()));
        }
    }

    #[test]
    fn kes_api_keys_are_the_same_keys_in_another_form() {
        for (key, identity) in [
            (
                "kes:v1:ACQpoGqx3rHHjT938Hfu5hVVQJHZWSqVI2Xp1KlYxFVw",
                "0426fa9a04bc2756b92fbe8a97e1a1e07b53ecf04ed33da22c33e5c9faeb8cbb",
            ),
            (
                "kes:v1:AAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
                "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5",
            ),
        ] {
            let parsed = ApiKey::parse(key).unwrap();
            assert_eq!(parsed.identity().to_kes_text(), identity);
            assert_eq!(parsed.to_kes_text().expose(), key);
            assert_eq!(Identity::parse(identity), Some(parsed.identity()));
            assert_eq!(ApiKey::parse(parsed.to_text().expose()), Ok(parsed));
        }
        for bad in [
            "kes:v1:",
            "kes:v1:AAAA",
            // Another kind of key.
            "kes:v1:AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            "kes:v2:AAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        ] {
            assert_eq!(ApiKey::parse(bad), Err(CredentialError::ApiKeyForm));
        }
        for bad in ["a0", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_carries_the_identity_of_its_key() {
        let key = ApiKey::generate(&SystemRandom);
        let (certificate, _) = key.to_certificate(&SystemClock, &SystemRandom).unwrap();
        let spki_at = certificate
            .windows(SPKI_ED25519.len())
            .position(|window| window == SPKI_ED25519)
            .expect("the certificate holds an Ed25519 key");
        let spki = &certificate[spki_at..spki_at + SPKI_ED25519.len() + 32];
        assert_eq!(
            digest(&SHA256, spki).as_ref(),
            key.identity().as_bytes().as_slice()
        );
    }

    #[test]
    fn other_texts_are_refused_and_not_echoed() {
        for bad in ["", "k1:", "k1:AAAA", "k3:AAECAwQF", "k1:!!!!", "h1:x"] {
            assert_eq!(
                ApiKey::parse(bad),
                Err(CredentialError::ApiKeyForm),
                "{bad}"
            );
        }
        let key = ApiKey::generate(&SystemRandom);
        assert_eq!(format!("{key:?}"), "ApiKey(REDACTED)");
        for bad in [
            "",
            "h1:",
            "h1:AAAA",
            "l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0",
        ] {
            assert_eq!(Identity::parse(bad), None, "{bad}");
        }
    }
}
