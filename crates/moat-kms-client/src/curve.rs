//! The curves of ECDSA API keys: which one a key is of, its public half, and the form that TLS
//! takes.

use aws_lc_rs::agreement;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm};
use moat_types::SecretBytes;
use zeroize::Zeroizing;

/// A curve. A key is a number of fixed width, from which its curve is known.
pub(crate) struct Curve {
    secret_bytes: usize,
    agreement: &'static agreement::Algorithm,
    signing: &'static EcdsaSigningAlgorithm,
    /// How certificates name it.
    pub(crate) certified: &'static rcgen::SignatureAlgorithm,
    /// DER before the point in a SubjectPublicKeyInfo (RFC 5480).
    spki: &'static [u8],
}

static CURVES: [Curve; 3] = [
    Curve {
        secret_bytes: 32,
        agreement: &agreement::ECDH_P256,
        signing: &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        certified: &rcgen::PKCS_ECDSA_P256_SHA256,
        spki: &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ],
    },
    Curve {
        secret_bytes: 48,
        agreement: &agreement::ECDH_P384,
        signing: &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
        certified: &rcgen::PKCS_ECDSA_P384_SHA384,
        spki: &[
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
        ],
    },
    Curve {
        secret_bytes: 66,
        agreement: &agreement::ECDH_P521,
        signing: &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
        certified: &rcgen::PKCS_ECDSA_P521_SHA512,
        spki: &[
            0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
            0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
        ],
    },
];

impl Curve {
    /// The curve of a private key; `None` if it is of none.
    pub(crate) fn of_secret(secret: &SecretBytes) -> Option<&'static Self> {
        let length = secret.expose().len();
        let curve = CURVES.iter().find(|curve| curve.secret_bytes == length)?;
        // A number that is 0 or too large for the curve is no key.
        curve.key_pair(secret).map(|_| curve)
    }

    /// The DER SubjectPublicKeyInfo of a key of this curve.
    pub(crate) fn spki(&self, secret: &SecretBytes) -> Vec<u8> {
        let point = self.point(secret).expect("the key was checked");
        [self.spki, &point].concat()
    }

    /// The DER PKCS#8 form of a key of this curve.
    pub(crate) fn to_pkcs8(&self, secret: &SecretBytes) -> Zeroizing<Vec<u8>> {
        let pair = self.key_pair(secret).expect("the key was checked");
        let document = pair.to_pkcs8v1().expect("the key is whole");
        Zeroizing::new(document.as_ref().to_vec())
    }

    fn key_pair(&self, secret: &SecretBytes) -> Option<EcdsaKeyPair> {
        let (point, secret) = (self.point(secret)?, secret.expose());
        EcdsaKeyPair::from_private_key_and_public_key(self.signing, secret, &point).ok()
    }

    fn point(&self, secret: &SecretBytes) -> Option<Vec<u8>> {
        let key = agreement::PrivateKey::from_private_key(self.agreement, secret.expose()).ok()?;
        Some(key.compute_public_key().ok()?.as_ref().to_vec())
    }
}

impl PartialEq for Curve {
    fn eq(&self, other: &Self) -> bool {
        self.secret_bytes == other.secret_bytes
    }
}

impl Eq for Curve {}

#[cfg(test)]
mod tests {
    use moat_types::{SystemClock, SystemRandom};

    use crate::ApiKey;

    #[test]
    fn keys_of_each_curve_make_certificates_of_their_identity() {
        use base64::Engine as _;
        for length in [32, 48, 66] {
            let mut secret = vec![7; length];
            // The order of P-521 has 521 bits, so its first byte is 0 or 1.
            secret[0] = 0;
            let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&secret);
            let key = ApiKey::parse(&format!("k2:{encoded}")).unwrap();
            assert_eq!(key.to_text().expose(), &format!("k2:{encoded}"));
            let (certificate, _) = key.to_certificate(&SystemClock, &SystemRandom).unwrap();
            let seen = moat_net::ClientKey::from_certificate(&certificate).unwrap();
            assert_eq!(&seen.spki_sha256, key.identity().as_bytes(), "{length}");
        }
    }

    #[test]
    fn what_is_no_key_of_any_curve_is_refused() {
        use base64::Engine as _;
        for secret in [
            vec![7; 31],
            vec![0; 32],
            vec![0xff; 32],
            vec![0xff; 66],
            vec![7; 64],
        ] {
            let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&secret);
            assert!(
                ApiKey::parse(&format!("k2:{encoded}")).is_err(),
                "{}",
                secret.len()
            );
        }
    }
}
