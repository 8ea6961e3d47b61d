//! Policies as KES writes them: patterns of URL paths, compiled to the same rules.
//!
//! A path pattern is a whole path, or a beginning of paths that ends in `*`, its only one. One
//! pattern can stand for several operations (`/v1/key/*`) or for names of one
//! (`/v1/key/generate/lake-*`). What a path policy allows is exactly what its compiled form
//! allows, for each path of the table below.

use moat_kms_client::wire::{Patterns, PolicyDocument};

use super::{Command, Policy, PolicyError};

/// A policy of path patterns. Deny wins; what neither list matches is refused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathPolicy {
    /// Paths that are allowed.
    pub allow: Vec<String>,
    /// Paths that are refused whatever `allow` says.
    pub deny: Vec<String>,
}

/// Where the thing that an operation is about stands in its path.
#[derive(Clone, Copy)]
enum Place {
    /// Behind the path.
    Behind,
    /// Nowhere: it is always this one.
    Fixed(&'static str),
}

/// The paths of the KES API and the operations that they stand for. Where several paths stand
/// for one operation, the first is its normal form.
const PATHS: &[(&str, Command, Place)] = &[
    ("/v1/key/create/", Command::KeyCreate, Place::Behind),
    ("/v1/key/import/", Command::KeyImport, Place::Behind),
    ("/v1/key/describe/", Command::KeyStatus, Place::Behind),
    ("/v1/key/list/", Command::KeyList, Place::Behind),
    ("/v1/key/delete/", Command::KeyDelete, Place::Behind),
    ("/v1/key/generate/", Command::KeyGenerate, Place::Behind),
    ("/v1/key/encrypt/", Command::KeyEncrypt, Place::Behind),
    ("/v1/key/decrypt/", Command::KeyDecrypt, Place::Behind),
    ("/v1/key/bulk/decrypt/", Command::KeyDecrypt, Place::Behind),
    ("/v1/key/hmac/", Command::KeyMac, Place::Behind),
    ("/v1/policy/describe/", Command::PolicyStatus, Place::Behind),
    ("/v1/policy/read/", Command::PolicyGet, Place::Behind),
    ("/v1/policy/list/", Command::PolicyList, Place::Behind),
    ("/v1/policy/write/", Command::PolicyCreate, Place::Behind),
    ("/v1/policy/assign/", Command::PolicyAssign, Place::Behind),
    ("/v1/policy/delete/", Command::PolicyDelete, Place::Behind),
    (
        "/v1/identity/describe/",
        Command::IdentityStatus,
        Place::Behind,
    ),
    ("/v1/identity/list/", Command::IdentityList, Place::Behind),
    (
        "/v1/identity/delete/",
        Command::IdentityDelete,
        Place::Behind,
    ),
    (
        "/v1/status",
        Command::ServerStatus,
        Place::Fixed(PathPolicy::STATUS),
    ),
    (
        "/v1/api",
        Command::ServerStatus,
        Place::Fixed(PathPolicy::API),
    ),
    (
        "/v1/ready",
        Command::ServerStatus,
        Place::Fixed(PathPolicy::READY),
    ),
    (
        "/v1/metrics",
        Command::MetricsRead,
        Place::Fixed(PathPolicy::METRICS),
    ),
    (
        "/v1/log/error",
        Command::LogRead,
        Place::Fixed(PathPolicy::ERROR_LOG),
    ),
    (
        "/v1/log/audit",
        Command::AuditRead,
        Place::Fixed(PathPolicy::AUDIT_LOG),
    ),
];

impl PathPolicy {
    /// What `SERVER:STATUS` is asked for at `/v1/status`.
    pub const STATUS: &str = "status";
    /// What `SERVER:STATUS` is asked for at `/v1/api`.
    pub const API: &str = "api";
    /// What `SERVER:STATUS` is asked for at `/v1/ready`.
    pub const READY: &str = "ready";
    /// What `METRICS:READ` is asked for.
    pub const METRICS: &str = "metrics";
    /// What `LOG:READ` is asked for at `/v1/log/error`.
    pub const ERROR_LOG: &str = "error";
    /// What `AUDIT:READ` is asked for.
    pub const AUDIT_LOG: &str = "audit";

    /// The same rules as a document of commands, which can be stored like any other.
    ///
    /// # Errors
    /// `PolicyError::Pattern` for a `*` that is not the last character. A pattern that matches no
    /// path of the table is kept out silently if it ends in `*` or names an API that needs no
    /// right (policies of real deployments hold those), else it is `PolicyError::UnknownPath`:
    /// surely a misspelling, and one in `deny` would leave a door open.
    pub fn to_document(&self) -> Result<PolicyDocument, PolicyError> {
        let mut document = PolicyDocument::default();
        for (paths, rules) in [
            (&self.allow, &mut document.allow),
            (&self.deny, &mut document.deny),
        ] {
            for path in paths {
                for (command, name) in compile(path)? {
                    let patterns = rules
                        .entry(command.as_str().to_owned())
                        .or_insert_with(|| Patterns::Many(Vec::new()));
                    if let Patterns::Many(patterns) = patterns {
                        patterns.push(name);
                    }
                }
            }
        }
        Ok(document)
    }

    /// The paths that stand for a policy's rules. Rules about operations that have no path are
    /// left out, so what this says is never more than the policy does.
    pub fn from_policy(policy: &Policy) -> Self {
        let document = policy.to_document();
        let paths = |rules: &std::collections::BTreeMap<String, Patterns>| {
            let mut out = Vec::new();
            for (command, patterns) in rules {
                let command = Command::parse(command);
                for (prefix, _, place) in PATHS.iter().filter(|(_, c, _)| Some(*c) == command) {
                    match place {
                        Place::Behind if *prefix != "/v1/key/bulk/decrypt/" => {
                            out.extend(patterns.iter().map(|name| format!("{prefix}{name}")));
                        }
                        Place::Fixed(name) if patterns.iter().any(|p| covers(p, name)) => {
                            out.push((*prefix).to_owned());
                        }
                        Place::Behind | Place::Fixed(_) => {}
                    }
                }
            }
            out
        };
        Self {
            allow: paths(&document.allow),
            deny: paths(&document.deny),
        }
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

/// The operations, and the pattern of names for each, that a path pattern stands for.
fn compile(path: &str) -> Result<Vec<(Command, String)>, PolicyError> {
    let (literal, open) = match path.strip_suffix('*') {
        Some(literal) => (literal, true),
        None => (path, false),
    };
    if literal.contains('*') {
        return Err(PolicyError::Pattern(path.chars().take(256).collect()));
    }
    let mut rules = Vec::new();
    for (prefix, command, place) in PATHS {
        match place {
            Place::Behind => match literal.strip_prefix(prefix) {
                // The whole path names nothing, and no name is empty.
                Some("") if !open => {}
                Some(name) if open => rules.push((*command, format!("{name}*"))),
                Some(name) => rules.push((*command, name.to_owned())),
                None if open && prefix.starts_with(literal) => {
                    rules.push((*command, "*".to_owned()));
                }
                None => {}
            },
            Place::Fixed(name) => {
                if literal == *prefix || (open && prefix.starts_with(literal)) {
                    rules.push((*command, (*name).to_owned()));
                }
            }
        }
    }
    let needs_no_right = ["/version", "/v1/identity/self/describe"].contains(&path);
    let names_nothing = PATHS.iter().any(|(prefix, _, _)| *prefix == path);
    if rules.is_empty() && !open && !needs_no_right && !names_nothing {
        return Err(PolicyError::UnknownPath(path.chars().take(256).collect()));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Verdict;
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Result<Policy, PolicyError> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let paths = PathPolicy {
            allow: owned(allow),
            deny: owned(deny),
        };
        Policy::compile(&paths.to_document()?)
    }

    #[test]
    fn the_policy_of_a_minio_server_compiles_to_its_commands() {
        let policy = policy(
            &[
                "/v1/key/create/minio-*",
                "/v1/key/generate/minio-*",
                "/v1/key/decrypt/minio-*",
                "/v1/key/bulk/decrypt/minio-*",
                "/v1/key/list/*",
                "/v1/status",
                "/v1/metrics",
                "/v1/log/audit",
                "/v1/log/error",
                "/version",
            ],
            &["/v1/key/generate/minio-internal*"],
        )
        .unwrap();
        for (command, name, expected) in [
            (Command::KeyCreate, "minio-a", Verdict::Allowed),
            (
                Command::KeyGenerate,
                "minio-internal-x",
                Verdict::DeniedByRule,
            ),
            (Command::KeyDecrypt, "minio-internal-x", Verdict::Allowed),
            (Command::KeyDelete, "minio-a", Verdict::NotAllowed),
            (Command::KeyList, "anything", Verdict::Allowed),
            (Command::ServerStatus, PathPolicy::STATUS, Verdict::Allowed),
            (Command::ServerStatus, PathPolicy::API, Verdict::NotAllowed),
            (Command::MetricsRead, PathPolicy::METRICS, Verdict::Allowed),
        ] {
            assert_eq!(policy.decide(command, name), expected, "{command} {name}");
        }
        let paths = PathPolicy::from_policy(&policy);
        assert_eq!(
            Policy::compile(&paths.to_document().unwrap()),
            Ok(policy),
            "{paths:?}"
        );
        assert!(paths.allow.contains(&"/v1/status".to_owned()));
    }

    #[test]
    fn misspelt_paths_and_odd_stars_are_refused() {
        for (path, unknown) in [
            ("/v1/key/genrate/k", true),
            ("/v2/status", true),
            ("/v1/key/*/k", false),
            ("/v1/key/**", false),
        ] {
            let refused = policy(&[], &[path]).unwrap_err();
            assert_eq!(
                matches!(refused, PolicyError::UnknownPath(_)),
                unknown,
                "{path}"
            );
        }
        assert!(policy(&["/v1/secret/*"], &[]).is_ok());
    }

    /// What KES does: the patterns against the path of the request, deny first.
    fn naive(allow: &[String], deny: &[String], path: &str) -> Verdict {
        let matched = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, path));
        if matched(deny) {
            Verdict::DeniedByRule
        } else if matched(allow) {
            Verdict::Allowed
        } else {
            Verdict::NotAllowed
        }
    }

    fn patterns() -> impl Strategy<Value = Vec<String>> {
        let whole = (0..PATHS.len(), "[ab]{0,3}\\*?").prop_map(|(at, name)| {
            let (prefix, _, place) = PATHS[at];
            match place {
                Place::Behind => format!("{prefix}{name}"),
                Place::Fixed(_) => prefix.to_owned(),
            }
        });
        let cut = (0..PATHS.len(), any::<prop::sample::Index>()).prop_map(|(at, cut)| {
            let prefix = PATHS[at].0;
            format!("{}*", &prefix[..cut.index(prefix.len() + 1)])
        });
        prop::collection::vec(prop_oneof![whole, cut], 0..6)
    }

    proptest! {
        #[test]
        fn compiled_paths_decide_as_kes_does(
            allow in patterns(), deny in patterns(), at in 0..PATHS.len(), name in "[ab]{1,4}",
        ) {
            let paths = PathPolicy { allow, deny };
            let policy = Policy::compile(&paths.to_document().unwrap()).unwrap();
            let (prefix, command, place) = PATHS[at];
            let (path, name) = match place {
                Place::Behind => (format!("{prefix}{name}"), name.as_str()),
                Place::Fixed(name) => (prefix.to_owned(), name),
            };
            // One operation, two paths: the one that is allowed is enough for the operation, and
            // the one that is denied takes both away.
            if command != Command::KeyDecrypt {
                prop_assert_eq!(
                    policy.decide(command, name),
                    naive(&paths.allow, &paths.deny, &path)
                );
            }
        }
    }
}
