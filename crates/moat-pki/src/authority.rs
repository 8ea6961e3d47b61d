//! A certificate authority and the leaves that it signs (RFC 5280).

use std::net::IpAddr;
use std::time::Duration;

use moat_types::{Clock, Random, SecretString};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
    SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::{CertificateInfo, Error, KeyAlgorithm, PrivateKey, SubjectName, pem};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a new CA is valid. Every client must be given a new truststore when it ends, so it
/// outlives the machines it was made on.
pub const CA_VALIDITY: Duration = DAY.saturating_mul(3653);

/// How long a new leaf is valid: under the 398 days above which some clients refuse server
/// certificates, and long enough that a lab which is started once a year still works.
pub const LEAF_VALIDITY: Duration = DAY.saturating_mul(397);

/// How far back the validity of a new certificate begins, so that a client whose clock is a little
/// behind accepts it.
pub const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// Bytes of a serial number: 127 random bits (CA/Browser Forum asks for 64 at least), positive.
const SERIAL_BYTES: usize = 16;

/// What a new CA shall be.
#[derive(Debug, Clone)]
pub struct CaRequest {
    /// The subject's common name. Two CAs of one name in a truststore confuse path building: put
    /// something unique in it.
    pub common_name: String,
    /// The kind of its key.
    pub algorithm: KeyAlgorithm,
    /// How long it is valid; [`CA_VALIDITY`] as a rule.
    pub validity: Duration,
    /// The names that it may sign. Empty: any. Kinds of names that have no entry here stay free
    /// (RFC 5280 section 4.2.1.10).
    pub permitted: Vec<NameScope>,
}

/// A part of the name space, for name constraints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameScope {
    /// This domain and all below it.
    Domain(String),
    /// A network: an address and the length of its prefix in bits.
    Network(IpAddr, u8),
}

impl NameScope {
    /// Reads `example.com` or `10.0.0.0/8`.
    ///
    /// # Errors
    /// [`Error::Name`] if `text` is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refused = || Error::Name {
            text: text.to_owned(),
        };
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| refused())?;
            let bits: u8 = bits.parse().map_err(|_| refused())?;
            let bits_max = if address.is_ipv4() { 32 } else { 128 };
            return if bits <= bits_max {
                Ok(Self::Network(address, bits))
            } else {
                Err(refused())
            };
        }
        match SubjectName::parse(text)? {
            SubjectName::Dns(domain) if !domain.starts_with('*') => Ok(Self::Domain(domain)),
            _ => Err(refused()),
        }
    }
}

/// What a leaf may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Presented by a server.
    Server,
    /// Presented by a client.
    Client,
    /// Both, as servers need that call each other.
    Both,
}

/// What a new leaf shall be.
#[derive(Debug, Clone)]
pub struct LeafRequest {
    /// The subject's common name; for people and logs only.
    pub common_name: String,
    /// What it is for.
    pub usage: Usage,
    /// The hosts that it vouches for.
    pub names: Vec<SubjectName>,
    /// How long it is valid; [`LEAF_VALIDITY`] as a rule. Cut at the end of the CA.
    pub validity: Duration,
}

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The leaf, DER.
    pub certificate: Vec<u8>,
    /// The CA, DER.
    pub issuer: Vec<u8>,
}

impl Issued {
    /// Leaf, then CA, as PEM: what a server presents. The CA is included so that a client which
    /// shows the chain (browsers, the doctor) can name it.
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates([self.certificate.as_slice(), &self.issuer])
    }

    /// Leaf, then CA, DER.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.certificate.clone(), self.issuer.clone()]
    }
}

/// A CA: its certificate and its key.
pub struct CertificateAuthority {
    certificate: Vec<u8>,
    info: CertificateInfo,
    key: PrivateKey,
}

impl CertificateAuthority {
    /// Makes a new, self-signed CA.
    ///
    /// # Errors
    /// [`Error::Generate`] or [`Error::Sign`] if the library refuses.
    pub fn create(
        request: &CaRequest,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, Error> {
        let key = PrivateKey::generate(request.algorithm)?;
        let mut params = params(&request.common_name, request.validity, clock, random);
        // Its leaves are the only thing below it.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = constraints(&request.permitted);
        let certificate = params
            .self_signed(key.inner())
            .map_err(|source| Error::Sign {
                subject: request.common_name.clone(),
                source,
            })?
            .der()
            .to_vec();
        let info = CertificateInfo::parse(&certificate)?;
        Ok(Self {
            certificate,
            info,
            key,
        })
    }

    /// Loads a CA from PEM texts. The first certificate is taken.
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::Certificate`] or [`Error::PrivateKey`] if a text is malformed,
    /// [`Error::NotACa`] if the certificate may not sign, [`Error::KeyMismatch`] if the key is not its own.
    pub fn from_pem(certificate: &str, private_key: &SecretString) -> Result<Self, Error> {
        let certificate = pem::decode_certificates(certificate.as_bytes())?.swap_remove(0);
        let info = CertificateInfo::parse(&certificate)?;
        let key = PrivateKey::from_pem(private_key.expose())?;
        let subject = info.subject.clone();
        if !info.is_ca {
            return Err(Error::NotACa { subject });
        }
        if info.public_key_sha256 != key.public_key_sha256() {
            return Err(Error::KeyMismatch { subject });
        }
        Ok(Self {
            certificate,
            info,
            key,
        })
    }

    /// Signs a certificate for `key`'s public half. Renewal is this with the old key: clients that
    /// know a peer by its public key see no change.
    ///
    /// # Errors
    /// [`Error::Name`] if a DNS name can't stand in a certificate, [`Error::Sign`] if the library refuses.
    pub fn issue(
        &self,
        request: &LeafRequest,
        key: &PrivateKey,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Issued, Error> {
        let sign_error = |source| Error::Sign {
            subject: request.common_name.clone(),
            source,
        };
        let remaining = self.info.not_after.0.saturating_sub(clock.now().0).max(0);
        let ca_ends_in = Duration::from_millis(remaining.unsigned_abs());
        let validity = request.validity.min(ca_ends_in);
        let mut params = params(&request.common_name, validity, clock, random);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = match request.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = request.names.iter().map(san).collect::<Result<_, _>>()?;
        let der = CertificateDer::from(self.certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&der, self.key.inner()).map_err(sign_error)?;
        let certificate = params
            .signed_by(key.inner(), &issuer)
            .map_err(sign_error)?
            .der()
            .to_vec();
        Ok(Issued {
            certificate,
            issuer: self.certificate.clone(),
        })
    }

    /// The CA's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The CA's certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode_certificates([self.certificate.as_slice()])
    }

    /// The CA's private key.
    pub const fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What the certificate says.
    pub const fn info(&self) -> &CertificateInfo {
        &self.info
    }
}

fn params(
    common_name: &str,
    validity: Duration,
    clock: &dyn Clock,
    random: &dyn Random,
) -> CertificateParams {
    let now = Duration::from_secs(clock.now().seconds().max(0).unsigned_abs());
    // rcgen's calendar type is reached through this constructor alone; the epoch plus a duration
    // needs no date arithmetic of ours.
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + (now + validity);
    params.serial_number = Some(serial(random));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn serial(random: &dyn Random) -> SerialNumber {
    let mut bytes = [0; SERIAL_BYTES];
    random.fill(&mut bytes);
    // A positive number whose first byte is not 0, hence always of the same length.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn san(name: &SubjectName) -> Result<SanType, Error> {
    Ok(match name {
        SubjectName::Ip(address) => SanType::IpAddress(*address),
        SubjectName::Dns(dns) => SanType::DnsName(
            dns.as_str()
                .try_into()
                .map_err(|_| Error::Name { text: dns.clone() })?,
        ),
    })
}

fn constraints(permitted: &[NameScope]) -> Option<NameConstraints> {
    if permitted.is_empty() {
        return None;
    }
    let subtree = |scope: &NameScope| match scope {
        NameScope::Domain(domain) => GeneralSubtree::DnsName(domain.clone()),
        NameScope::Network(address, bits) => {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, *bits))
        }
    };
    Some(NameConstraints {
        permitted_subtrees: permitted.iter().map(subtree).collect(),
        excluded_subtrees: Vec::new(),
    })
}
