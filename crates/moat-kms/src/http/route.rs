//! From a path to what it names. Everything in it is checked here, once.

use http::{HeaderValue, Method};
use moat_kms_client::{Code, Identity};
use moat_types::{EnclaveName, KeyName, KeyVersion, LakeId, NameError};
use percent_encoding::percent_decode_str;

use super::answer::Refusal;
use super::operations::{self, Operation};
use crate::core::Force;
use crate::rows::Scope;

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Route {
    Version,
    OpenApi,
    Live,
    Ready,
    Metrics,
    Audit,
    Hsm,
    HsmRotation,
    Backup,
    Enclaves,
    Enclave(EnclaveName),
    Bulk(EnclaveName, BulkAction),
    Lake(EnclaveName, LakeId),
    Keys(EnclaveName),
    Key(EnclaveName, KeyName),
    KeyVersions(EnclaveName, KeyName),
    KeyVersion(EnclaveName, KeyName, KeyVersion),
    KeyAction(EnclaveName, KeyName, KeyAction),
    Identities(Scope),
    OwnIdentity(Scope),
    Identity(Scope, Identity),
    IdentityPolicy(Scope, Identity),
    IdentityCheck(Scope, Identity),
    Policies(Scope),
    Policy(Scope, KeyName),
}

impl Route {
    /// Whether it gives keys or plaintexts out and changes nothing: broken off, it gave nothing
    /// out, so it needs no task that outlives its caller.
    pub(super) const fn is_release(&self) -> bool {
        matches!(
            self,
            // A report gives nothing out, and nothing is lost with half of one.
            Self::Bulk(..)
                | Self::Lake(..)
                | Self::KeyAction(
                    _,
                    _,
                    KeyAction::Generate
                        | KeyAction::Encrypt
                        | KeyAction::Decrypt
                        | KeyAction::Mac
                        | KeyAction::VerifyMac
                        | KeyAction::GenerateEpoch
                        | KeyAction::OpenEpoch
                )
        )
    }
}

/// What is done with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KeyAction {
    Import,
    Export,
    Enable,
    Disable,
    Restore,
    Rotation,
    Generate,
    Encrypt,
    Decrypt,
    Mac,
    VerifyMac,
    GenerateEpoch,
    OpenEpoch,
    RewrapEpoch,
}

/// What is done with many items at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BulkAction {
    Generate,
    Encrypt,
    Decrypt,
    Mac,
}

impl Route {
    /// Parses a path.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let nothing = || Refusal::new(Code::NotFound, "there is nothing at this path");
        /// No known path has as many.
        const SEGMENTS_MAX: usize = 10;
        let path = path.strip_prefix('/').ok_or_else(nothing)?;
        let decoded: Vec<_>;
        let mut segments = [""; SEGMENTS_MAX];
        let mut count = 0;
        let mut add = |segment| {
            *segments.get_mut(count).ok_or_else(nothing)? = segment;
            count += 1;
            Ok::<_, Refusal>(())
        };
        if path.contains('%') {
            decoded = path
                .split('/')
                .map(|segment| percent_decode_str(segment).decode_utf8())
                .collect::<Result<_, _>>()
                .map_err(|_| nothing())?;
            decoded.iter().try_for_each(|segment| add(segment))?;
        } else {
            // By bytes: what `str::split` does to search for a character takes three times as long
            // as these short words do.
            let mut start = 0;
            for (at, byte) in path.bytes().enumerate() {
                if byte == b'/' {
                    add(&path[start..at])?;
                    start = at + 1;
                }
            }
            add(&path[start..])?;
        }
        match &segments[..count] {
            ["version"] => Ok(Self::Version),
            ["metrics"] => Ok(Self::Metrics),
            ["v1", "openapi.json"] => Ok(Self::OpenApi),
            ["v1", "health", "live"] => Ok(Self::Live),
            ["v1", "health", "ready"] => Ok(Self::Ready),
            ["v1", "audit"] => Ok(Self::Audit),
            ["v1", "hsm"] => Ok(Self::Hsm),
            ["v1", "hsm", "rotate"] => Ok(Self::HsmRotation),
            ["v1", "backup"] => Ok(Self::Backup),
            ["v1", "enclaves"] => Ok(Self::Enclaves),
            ["v1", "enclaves", enclave] => Ok(Self::Enclave(parse_enclave(enclave)?)),
            ["v1", "enclaves", enclave, "keys", rest @ ..] => {
                Self::parse_key(parse_enclave(enclave)?, rest)
            }
            ["v1", "enclaves", enclave, "bulk", action] => {
                let action = match *action {
                    "generate" => BulkAction::Generate,
                    "encrypt" => BulkAction::Encrypt,
                    "decrypt" => BulkAction::Decrypt,
                    "mac" => BulkAction::Mac,
                    _ => return Err(nothing()),
                };
                Ok(Self::Bulk(parse_enclave(enclave)?, action))
            }
            ["v1", "enclaves", enclave, "lakes", lake] => {
                Ok(Self::Lake(parse_enclave(enclave)?, parse_lake(lake)?))
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
            ["versions", version] => {
                return Ok(Self::KeyVersion(enclave, name, parse_version(version)?));
            }
            ["import"] => KeyAction::Import,
            ["export"] => KeyAction::Export,
            ["restore"] => KeyAction::Restore,
            ["rotation"] => KeyAction::Rotation,
            ["mac"] => KeyAction::Mac,
            ["mac", "verify"] => KeyAction::VerifyMac,
            ["enable"] => KeyAction::Enable,
            ["disable"] => KeyAction::Disable,
            ["generate"] => KeyAction::Generate,
            ["encrypt"] => KeyAction::Encrypt,
            ["decrypt"] => KeyAction::Decrypt,
            ["epochs", "generate"] => KeyAction::GenerateEpoch,
            ["epochs", "open"] => KeyAction::OpenEpoch,
            ["epochs", "rewrap"] => KeyAction::RewrapEpoch,
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
            ["identities", "self"] => Ok(Self::OwnIdentity(scope)),
            ["identities", identity, "check"] => {
                Ok(Self::IdentityCheck(scope, parse_identity(identity)?))
            }
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

    /// The path with its parameters in braces, under which it stands in the table of operations.
    pub(super) const fn template(&self) -> &'static str {
        match self {
            Self::Version => "/version",
            Self::OpenApi => "/v1/openapi.json",
            Self::Live => "/v1/health/live",
            Self::Ready => "/v1/health/ready",
            Self::Metrics => "/metrics",
            Self::Audit => "/v1/audit",
            Self::Hsm => "/v1/hsm",
            Self::HsmRotation => "/v1/hsm/rotate",
            Self::Backup => "/v1/backup",
            Self::Enclaves => "/v1/enclaves",
            Self::Enclave(_) => "/v1/enclaves/{enclave}",
            Self::Bulk(_, action) => match action {
                BulkAction::Generate => "/v1/enclaves/{enclave}/bulk/generate",
                BulkAction::Encrypt => "/v1/enclaves/{enclave}/bulk/encrypt",
                BulkAction::Decrypt => "/v1/enclaves/{enclave}/bulk/decrypt",
                BulkAction::Mac => "/v1/enclaves/{enclave}/bulk/mac",
            },
            Self::Lake(..) => "/v1/enclaves/{enclave}/lakes/{lake}",
            Self::Keys(_) => "/v1/enclaves/{enclave}/keys",
            Self::Key(..) => "/v1/enclaves/{enclave}/keys/{key}",
            Self::KeyVersions(..) => "/v1/enclaves/{enclave}/keys/{key}/versions",
            Self::KeyVersion(..) => "/v1/enclaves/{enclave}/keys/{key}/versions/{version}",
            Self::KeyAction(_, _, action) => action.template(),
            Self::Identities(Scope::System) => "/v1/identities",
            Self::Identities(_) => "/v1/enclaves/{enclave}/identities",
            Self::OwnIdentity(Scope::System) => "/v1/identities/self",
            Self::OwnIdentity(_) => "/v1/enclaves/{enclave}/identities/self",
            Self::Identity(Scope::System, _) => "/v1/identities/{identity}",
            Self::Identity(..) => "/v1/enclaves/{enclave}/identities/{identity}",
            Self::IdentityPolicy(Scope::System, _) => "/v1/identities/{identity}/policy",
            Self::IdentityPolicy(..) => "/v1/enclaves/{enclave}/identities/{identity}/policy",
            Self::IdentityCheck(Scope::System, _) => "/v1/identities/{identity}/check",
            Self::IdentityCheck(..) => "/v1/enclaves/{enclave}/identities/{identity}/check",
            Self::Policies(Scope::System) => "/v1/policies",
            Self::Policies(_) => "/v1/enclaves/{enclave}/policies",
            Self::Policy(Scope::System, _) => "/v1/policies/{policy}",
            Self::Policy(..) => "/v1/enclaves/{enclave}/policies/{policy}",
        }
    }

    /// The operation that a method stands for here.
    pub(super) fn operation(&self, method: &Method) -> Result<&'static Operation, Refusal> {
        let found = operations::of_path(self.template())
            .find(|operation| operation.method.as_str() == method.as_str());
        found.ok_or_else(|| {
            let known: Vec<_> = operations::of_path(self.template())
                .map(|operation| operation.method.as_str())
                .collect();
            let known = known.join(", ");
            let detail = format!("this path knows {known}");
            let allow = HeaderValue::from_str(&known).expect("methods are words");
            Refusal::new(Code::MethodNotAllowed, detail).allow(allow)
        })
    }
}

impl KeyAction {
    const fn template(self) -> &'static str {
        match self {
            Self::Import => "/v1/enclaves/{enclave}/keys/{key}/import",
            Self::Export => "/v1/enclaves/{enclave}/keys/{key}/export",
            Self::Enable => "/v1/enclaves/{enclave}/keys/{key}/enable",
            Self::Disable => "/v1/enclaves/{enclave}/keys/{key}/disable",
            Self::Restore => "/v1/enclaves/{enclave}/keys/{key}/restore",
            Self::Rotation => "/v1/enclaves/{enclave}/keys/{key}/rotation",
            Self::Generate => "/v1/enclaves/{enclave}/keys/{key}/generate",
            Self::Encrypt => "/v1/enclaves/{enclave}/keys/{key}/encrypt",
            Self::Decrypt => "/v1/enclaves/{enclave}/keys/{key}/decrypt",
            Self::Mac => "/v1/enclaves/{enclave}/keys/{key}/mac",
            Self::VerifyMac => "/v1/enclaves/{enclave}/keys/{key}/mac/verify",
            Self::GenerateEpoch => "/v1/enclaves/{enclave}/keys/{key}/epochs/generate",
            Self::OpenEpoch => "/v1/enclaves/{enclave}/keys/{key}/epochs/open",
            Self::RewrapEpoch => "/v1/enclaves/{enclave}/keys/{key}/epochs/rewrap",
        }
    }
}

pub(super) fn bad_name(e: NameError) -> Refusal {
    Refusal::new(Code::BadRequest, e.to_string())
}

fn parse_enclave(text: &str) -> Result<EnclaveName, Refusal> {
    EnclaveName::parse(text).map_err(bad_name)
}

fn parse_version(text: &str) -> Result<KeyVersion, Refusal> {
    text.parse().ok().and_then(KeyVersion::new).ok_or_else(|| {
        let detail = "a key version is a number from 1";
        Refusal::new(Code::BadRequest, detail)
    })
}

fn parse_lake(text: &str) -> Result<LakeId, Refusal> {
    LakeId::parse(text).ok_or_else(|| Refusal::new(Code::BadRequest, "a lake is 32 hex digits"))
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
    pub(super) after: Option<u64>,
    pub(super) wait_seconds: Option<u64>,
    pub(super) grace_seconds: Option<u64>,
    pub(super) force: Force,
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
                "force" => {
                    query.force = parse_force(&value)?;
                    continue;
                }
                "limit" => {
                    query.limit = Some(parse_number(name, &value)?);
                    continue;
                }
                "after" | "wait_seconds" | "grace_seconds" => {
                    let number = Some(parse_number(name, &value)?);
                    match name {
                        "after" => query.after = number,
                        "wait_seconds" => query.wait_seconds = number,
                        _ => query.grace_seconds = number,
                    }
                    continue;
                }
                _ => continue,
            };
            *slot = Some(value.into_owned());
        }
        Ok(query)
    }
}

/// A parameter that is there without a value is meant.
fn parse_force(text: &str) -> Result<Force, Refusal> {
    match text {
        "" | "true" => Ok(Force::Yes),
        "false" => Ok(Force::No),
        _ => {
            let detail = "the parameter force must be true or false";
            Err(Refusal::new(Code::BadRequest, detail))
        }
    }
}

fn parse_number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| {
        let detail = format!("the parameter {name} must be a number");
        Refusal::new(Code::BadRequest, detail)
    })
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
        for (text, force) in [
            ("", Force::No),
            ("force", Force::Yes),
            ("force=true", Force::Yes),
            ("force=false", Force::No),
        ] {
            assert_eq!(Query::parse(text).unwrap().force, force, "{text}");
        }
        assert!(Query::parse("force=perhaps").is_err());
        assert!(Query::parse("prefix=%FF").is_err());
    }

    #[test]
    fn unknown_methods_are_named_in_allow() {
        let route = Route::parse("/v1/enclaves/e/keys/k/disable").unwrap();
        assert!(route.operation(&Method::POST).is_ok());
        let refused = route.operation(&Method::GET).unwrap_err();
        assert_eq!(refused.code(), Code::MethodNotAllowed);
    }
}
