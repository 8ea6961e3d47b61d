//! Reads the answer of an STS (AWS STS API reference, "AssumeRoleWithWebIdentity").

use moat_types::{SecretString, UnixMillis};

use super::parse::{malformed, parse};
use crate::error::S3Error;
use crate::sigv4::Credentials;
use crate::time::parse_iso;

/// An answer has a dozen elements.
const ELEMENTS_MAX: usize = 100;

/// Temporary keys.
#[derive(Clone, Debug)]
pub struct StsCredentials {
    /// The keys.
    pub credentials: Credentials,
    /// Until when they are good, if the answer says so.
    pub expiration: Option<UnixMillis>,
}

/// Reads an `AssumeRoleWithWebIdentityResponse`.
///
/// # Errors
/// `MalformedXML` if it is something else or lacks the keys.
pub fn read_sts_credentials(answer: &[u8]) -> Result<StsCredentials, S3Error> {
    const KNOWN: &[&str] = &[
        "AssumeRoleWithWebIdentityResult",
        "Credentials",
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    ];
    let root = parse(
        answer,
        "AssumeRoleWithWebIdentityResponse",
        KNOWN,
        ELEMENTS_MAX,
    )?;
    let result = root
        .only("AssumeRoleWithWebIdentityResult")?
        .ok_or_else(malformed)?;
    let keys = result.only("Credentials")?.ok_or_else(malformed)?;
    let text = |name| {
        keys.trimmed(name)
            .map(|text| text.filter(|text| !text.is_empty()))
    };
    let needed = |name| text(name)?.map(str::to_owned).ok_or_else(malformed);
    Ok(StsCredentials {
        credentials: Credentials {
            access_key_id: needed("AccessKeyId")?,
            secret_access_key: SecretString::new(needed("SecretAccessKey")?),
            session_token: text("SessionToken")?.map(str::to_owned),
        },
        expiration: text("Expiration")?.and_then(parse_iso),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_end_are_read() {
        let answer = br#"<?xml version="1.0" encoding="UTF-8"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <AssumedRoleUser><Arn></Arn><AssumeRoleId></AssumeRoleId></AssumedRoleUser>
    <Credentials><AccessKeyId>AK</AccessKeyId><SecretAccessKey>SK</SecretAccessKey>
      <Expiration>2026-11-21T19:00:00Z</Expiration><SessionToken>T</SessionToken></Credentials>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>"#;
        let found = read_sts_credentials(answer).unwrap();
        assert_eq!(found.credentials.access_key_id, "AK");
        assert_eq!(found.credentials.secret_access_key.expose(), "SK");
        assert_eq!(found.credentials.session_token.as_deref(), Some("T"));
        assert_eq!(found.expiration, parse_iso("2026-11-21T19:00:00Z"));
        assert!(read_sts_credentials(b"<ErrorResponse/>").is_err());
        let without =
            String::from_utf8_lossy(answer).replace("<SecretAccessKey>SK</SecretAccessKey>", "");
        assert!(read_sts_credentials(without.as_bytes()).is_err());
    }
}
