//! Where a key in a token is: a PKCS#11 URI (RFC 7512) of the attributes that are needed here.
//!
//! `pkcs11:token=LABEL;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/moat/pin`

use std::fmt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// Why a URI was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It is not one, or lacks an attribute that is needed.
    #[error(
        "a token's key is pkcs11:token=LABEL;object=KEY?module-path=FILE&pin-source=FILE (RFC 7512)"
    )]
    Form,
    /// An attribute that is not understood; ignoring it could mean another key.
    #[error(
        "the PKCS#11 attribute {0:?} is not taken; token, serial, object, id, module-path and pin-source are"
    )]
    Attribute(String),
    /// The PIN stands in the URI.
    #[error(
        "pin-value would leave the PIN in configuration files; put it into a file that pin-source names, or into MOAT_HSM_PIN"
    )]
    PinValue,
}

/// A key in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUri {
    /// The token's label.
    pub token: String,
    /// The token's serial number, if several may bear the label.
    pub serial: Option<String>,
    /// The key's label (`CKA_LABEL`).
    pub object: String,
    /// The key's `CKA_ID`, if several bear the label.
    pub id: Option<Vec<u8>>,
    /// The shared library of the token's vendor.
    pub module: PathBuf,
    /// The file with the PIN.
    pub pin_source: Option<PathBuf>,
}

impl TokenUri {
    const SCHEME: &str = "pkcs11:";

    /// Whether a text is meant as one.
    pub fn is_uri(text: &str) -> bool {
        text.starts_with(Self::SCHEME)
    }

    /// Parses a URI.
    ///
    /// # Errors
    /// `UriError` says what is missing or not taken.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(Self::SCHEME).ok_or(UriError::Form)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut token, mut serial, mut object, mut id) = (None, None, None, None);
        let (mut module, mut pin_source) = (None, None);
        let attributes = path.split(';').chain(query.split('&'));
        for attribute in attributes.filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or(UriError::Form)?;
            let bytes: Vec<u8> = percent_decode_str(value).collect();
            if name == "id" {
                id = Some(bytes);
                continue;
            }
            let value = String::from_utf8(bytes).map_err(|_| UriError::Form)?;
            match name {
                "token" => token = Some(value),
                "serial" => serial = Some(value),
                "object" => object = Some(value),
                // The only type that there is here; written by tools that list objects.
                "type" if value == "secret-key" => {}
                "module-path" => module = Some(PathBuf::from(value)),
                "pin-source" => {
                    let path = value.strip_prefix("file:").unwrap_or(&value);
                    pin_source = Some(PathBuf::from(path));
                }
                "pin-value" => return Err(UriError::PinValue),
                other => return Err(UriError::Attribute(other.to_owned())),
            }
        }
        Ok(Self {
            token: token.ok_or(UriError::Form)?,
            serial,
            object: object.ok_or(UriError::Form)?,
            id,
            module: module
                .filter(|module: &PathBuf| Path::is_absolute(module))
                .ok_or(UriError::Form)?,
            pin_source,
        })
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?} in the token {:?}", self.object, self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_module_token_key_and_pin_file() {
        let uri = TokenUri::parse(
            "pkcs11:token=my%20lake;object=moat;id=%01%ff?module-path=/m.so&pin-source=file:/pin",
        )
        .unwrap();
        assert_eq!(uri.token, "my lake");
        assert_eq!(uri.object, "moat");
        assert_eq!(uri.id.as_deref(), Some(&[1, 0xFF][..]));
        assert_eq!(uri.module, Path::new("/m.so"));
        assert_eq!(uri.pin_source.as_deref(), Some(Path::new("/pin")));
    }

    #[test]
    fn other_texts_say_what_is_wrong() {
        let parse = |text: &str| TokenUri::parse(text).unwrap_err();
        for incomplete in [
            "pkcs11:",
            "pkcs11:token=t",
            "pkcs11:token=t;object=o",
            "pkcs11:token=t;object=o?module-path=relative.so",
            "pkcs11:token",
            "/etc/hsm.key",
        ] {
            assert_eq!(parse(incomplete), UriError::Form, "{incomplete}");
        }
        let whole = "pkcs11:token=t;object=o?module-path=/m.so";
        assert_eq!(parse(&format!("{whole}&pin-value=1")), UriError::PinValue);
        let error = parse(&format!("{whole}&slot-id=1"));
        assert_eq!(error, UriError::Attribute("slot-id".into()));
    }
}
