//! From a path to what it names. Everything in it is checked here, once.

use http::{HeaderValue, Method};
use moat_kms_client::{Code, Identity};
use moat_types::{EnclaveName, KeyName, NameError};
use percent_encoding::percent_decode_str;

use super::answer::Refusal;
use crate::rows::Scope;

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Metrics,
    Audit,
    Enclaves,
    Enclave(EnclaveName),
    Keys(EnclaveName),
    Key(EnclaveName, KeyName),
    KeyVersions(EnclaveName, KeyName),
    KeyAction(EnclaveName, KeyName, KeyAction),
    Identities(Scope),
    Identity(Scope, Identity),
    IdentityPolicy(Scope, Identity),
    Policies(Scope),
    Policy(Scope, KeyName),
}

/// What is done with a key by POST.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyAction {
    Enable,
    Disable,
    Generate,
    Encrypt,
    Decrypt,
    GenerateEpoch,
    OpenEpoch,
}

/// Bodies that hold some names and a wrapped key.
const SMALL_BODY: usize = 64 << 10;
/// Bodies with a plaintext of up to 64 KiB and its context, in base64.
const SECRET_BODY: usize = 256 << 10;
/// A policy with as many patterns as one may have.
const POLICY_BODY: usize = 1 << 20;

impl Route {
    /// Parses a path.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let nothing = || Refusal::new(Code::NotFound, "there is nothing at this path");
        let segments: Vec<_> = path
            .strip_prefix('/')
            .ok_or_else(nothing)?
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8())
            .collect::<Result<_, _>>()
            .map_err(|_| nothing())?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match segments.as_slice() {
            ["metrics"] => Ok(Self::Metrics),
            ["v1", "audit"] => Ok(Self::Audit),
            ["v1", "enclaves"] => Ok(Self::Enclaves),
            ["v1", "enclaves", enclave] => Ok(Self::Enclave(parse_enclave(enclave)?)),
            ["v1", "enclaves", enclave, "keys", rest @ ..] => {
                Self::parse_key(parse_enclave(enclave)?, rest)
            }
            ["v1", "enclaves", enclave, rest @ ..] => {
                Self::parse_scoped(Scope::Enclave(parse_enclave(enclave)?), rest)
            }
            ["v1", rest @ ..] => Self::parse_scoped(Scope::System, rest),
            _ => Err(nothing()),
        }
    }

    fn parse_key(enclave: EnclaveName, rest: &[&str]) -> Result<Self, Refusal> {
        let name = match rest {
            [] => return Ok(Self::Keys(enclave)),
            [name, ..] => KeyName::parse(name).map_err(bad_name)?,
        };
        let action = match &rest[1..] {
            [] => return Ok(Self::Key(enclave, name)),
            ["versions"] => return Ok(Self::KeyVersions(enclave, name)),
            ["enable"] => KeyAction::Enable,
            ["disable"] => KeyAction::Disable,
            ["generate"] => KeyAction::Generate,
            ["encrypt"] => KeyAction::Encrypt,
            ["decrypt"] => KeyAction::Decrypt,
            ["epochs", "generate"] => KeyAction::GenerateEpoch,
            ["epochs", "open"] => KeyAction::OpenEpoch,
            _ => {
                return Err(Refusal::new(
                    Code::NotFound,
                    "there is nothing at this path",
                ));
            }
        };
        Ok(Self::KeyAction(enclave, name, action))
    }

    fn parse_scoped(scope: Scope, rest: &[&str]) -> Result<Self, Refusal> {
        match rest {
            ["identities"] => Ok(Self::Identities(scope)),
            ["identities", identity] => Ok(Self::Identity(scope, parse_identity(identity)?)),
            ["identities", identity, "policy"] => {
                Ok(Self::IdentityPolicy(scope, parse_identity(identity)?))
            }
            ["policies"] => Ok(Self::Policies(scope)),
            ["policies", policy] => Ok(Self::Policy(
                scope,
                KeyName::parse(policy).map_err(bad_name)?,
            )),
            _ => Err(Refusal::new(
                Code::NotFound,
                "there is nothing at this path",
            )),
        }
    }

    /// The methods that the path knows, as the `Allow` header names them.
    const fn methods(&self) -> &'static str {
        match self {
            Self::Metrics | Self::Audit | Self::Enclave(_) | Self::Key(..) => "GET",
            Self::Identity(..) | Self::Policies(_) => "GET",
            Self::Enclaves | Self::Keys(_) | Self::KeyVersions(..) | Self::Identities(_) => {
                "GET, POST"
            }
            Self::KeyAction(..) => "POST",
            Self::IdentityPolicy(..) => "PUT",
            Self::Policy(..) => "GET, PUT",
        }
    }

    /// Refuses methods that the path does not know.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Refusal> {
        if self
            .methods()
            .split(", ")
            .any(|known| known == method.as_str())
        {
            Ok(())
        } else {
            Err(method_not_allowed(self.methods()))
        }
    }

    /// The largest body of a request.
    pub(super) fn body_bytes_max(&self, method: &Method) -> usize {
        match self {
            _ if method == Method::GET => 0,
            Self::KeyAction(_, _, KeyAction::Encrypt | KeyAction::Decrypt) => SECRET_BODY,
            Self::Policy(..) => POLICY_BODY,
            _ => SMALL_BODY,
        }
    }
}

pub(super) fn method_not_allowed(methods: &'static str) -> Refusal {
    let detail = format!("this path knows {methods}");
    Refusal::new(Code::MethodNotAllowed, detail).allow(HeaderValue::from_static(methods))
}

pub(super) fn bad_name(e: NameError) -> Refusal {
    Refusal::new(Code::BadRequest, e.to_string())
}

fn parse_enclave(text: &str) -> Result<EnclaveName, Refusal> {
    EnclaveName::parse(text).map_err(bad_name)
}

fn parse_identity(text: &str) -> Result<Identity, Refusal> {
    Identity::parse(text).ok_or_else(|| {
        let detail = "an identity is h1: and 43 characters of base64url";
        Refusal::new(Code::BadRequest, detail)
    })
}

/// The parameters of a query that the routes know; others are ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) prefix: Option<String>,
    pub(super) from: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) key: Option<String>,
    pub(super) identity: Option<String>,
    pub(super) operation: Option<String>,
    pub(super) enclave: Option<String>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8().map_err(|_| {
                let detail = format!("the parameter {name} is not UTF-8");
                Refusal::new(Code::BadRequest, detail)
            })?;
            let slot = match name {
                "prefix" => &mut query.prefix,
                "from" => &mut query.from,
                "key" => &mut query.key,
                "identity" => &mut query.identity,
                "operation" => &mut query.operation,
                "enclave" => &mut query.enclave,
                "limit" => {
                    let limit = value.parse().map_err(|_| {
                        Refusal::new(Code::BadRequest, "the parameter limit must be a number")
                    })?;
                    query.limit = Some(limit);
                    continue;
                }
                _ => continue,
            };
            *slot = Some(value.into_owned());
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_the_table_says() {
        let enclave = EnclaveName::parse("e").unwrap();
        let key = KeyName::parse("k").unwrap();
        let identity = Identity::from_spki_sha256([7; 32]);
        let encoded = identity.to_string().replace(':', "%3A");
        for (path, expected) in [
            ("/metrics".to_owned(), Route::Metrics),
            ("/v1/enclaves".into(), Route::Enclaves),
            ("/v1/enclaves/e".into(), Route::Enclave(enclave.clone())),
            ("/v1/enclaves/e/keys".into(), Route::Keys(enclave.clone())),
            (
                "/v1/enclaves/e/keys/k".into(),
                Route::Key(enclave.clone(), key.clone()),
            ),
            (
                "/v1/enclaves/e/keys/k/epochs/open".into(),
                Route::KeyAction(enclave.clone(), key.clone(), KeyAction::OpenEpoch),
            ),
            (
                format!("/v1/identities/{identity}"),
                Route::Identity(Scope::System, identity),
            ),
            (
                format!("/v1/enclaves/e/identities/{encoded}/policy"),
                Route::IdentityPolicy(Scope::Enclave(enclave.clone()), identity),
            ),
            (
                "/v1/policies/k".into(),
                Route::Policy(Scope::System, key.clone()),
            ),
        ] {
            assert_eq!(Route::parse(&path).ok(), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_and_names_are_refused() {
        for (path, code) in [
            ("", Code::NotFound),
            ("/", Code::NotFound),
            ("/v1", Code::NotFound),
            ("/v1/enclaves/e/keys/k/epochs", Code::NotFound),
            ("/v1/enclaves/e/keys/k/open/x", Code::NotFound),
            ("/v1/enclaves/%FF", Code::NotFound),
            ("/v1/enclaves/", Code::BadRequest),
            ("/v1/enclaves/a%2Fb/keys", Code::BadRequest),
            ("/v1/enclaves/e/keys/..", Code::BadRequest),
            ("/v1/identities/x", Code::BadRequest),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code(), code, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded_and_limits_are_numbers() {
        let query = Query::parse("prefix=a%26b&limit=5&other=1&&from").unwrap();
        assert_eq!(query.prefix.as_deref(), Some("a&b"));
        assert_eq!((query.limit, query.from.as_deref()), (Some(5), Some("")));
        assert!(Query::parse("limit=x").is_err());
        assert!(Query::parse("prefix=%FF").is_err());
    }

    #[test]
    fn unknown_methods_are_named_in_allow() {
        let route = Route::parse("/v1/enclaves/e/keys/k/disable").unwrap();
        assert!(route.check_method(&Method::POST).is_ok());
        let refused = route.check_method(&Method::GET).unwrap_err();
        assert_eq!(refused.code(), Code::MethodNotAllowed);
    }
}
