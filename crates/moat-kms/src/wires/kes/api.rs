//! The table of paths: method, size and time limits of each, as `GET /v1/api` prints it.
//!
//! A path that ends in `/` takes an argument: a name, an identity or the beginning of a listing.

use http::Method;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::answer::Refusal;

/// What a path asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Version,
    Ready,
    Status,
    Metrics,
    Apis,
    CreateKey,
    ImportKey,
    DescribeKey,
    ListKeys,
    DeleteKey,
    Generate,
    Encrypt,
    Decrypt,
    Hmac,
    DescribePolicy,
    ReadPolicy,
    ListPolicies,
    DescribeSelf,
    DescribeIdentity,
    ListIdentities,
    ErrorLog,
    AuditLog,
}

impl Action {
    /// Whether it is left out of the request metrics: probes and scrapes would drown the rest.
    pub(super) const fn is_probe(self) -> bool {
        matches!(
            self,
            Self::Version | Self::Ready | Self::Status | Self::Metrics | Self::Apis
        )
    }

    /// Whether it changes something, so that it is to be carried to its end even if the caller
    /// goes away. A release that is broken off released nothing.
    pub(super) const fn is_change(self) -> bool {
        matches!(self, Self::CreateKey | Self::ImportKey | Self::DeleteKey)
    }
}

/// One row of the table. Serialized as `GET /v1/api` lists it.
#[derive(Debug, Serialize)]
pub(super) struct Api {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    #[serde(rename = "max_body")]
    pub(super) body_bytes_max: usize,
    /// Seconds; 0 for none.
    pub(super) timeout: u64,
    #[serde(skip)]
    pub(super) action: Action,
}

/// What KES allows a request with a body: a plaintext or ciphertext and its context in base64.
const BODY: usize = 1 << 20;

const fn api(
    method: &'static str,
    path: &'static str,
    body_bytes_max: usize,
    timeout: u64,
    action: Action,
) -> Api {
    Api {
        method,
        path,
        body_bytes_max,
        timeout,
        action,
    }
}

/// All paths. One that is the beginning of another stands behind it.
pub(super) const APIS: &[Api] = &[
    api("GET", "/version", 0, 10, Action::Version),
    api("GET", "/v1/ready", 0, 15, Action::Ready),
    api("GET", "/v1/status", 0, 15, Action::Status),
    api("GET", "/v1/metrics", 0, 15, Action::Metrics),
    api("GET", "/v1/api", 0, 10, Action::Apis),
    api("PUT", "/v1/key/create/", 0, 15, Action::CreateKey),
    api("PUT", "/v1/key/import/", BODY, 15, Action::ImportKey),
    api("GET", "/v1/key/describe/", 0, 15, Action::DescribeKey),
    api("GET", "/v1/key/list/", 0, 15, Action::ListKeys),
    api("DELETE", "/v1/key/delete/", 0, 15, Action::DeleteKey),
    api("PUT", "/v1/key/generate/", BODY, 15, Action::Generate),
    api("PUT", "/v1/key/encrypt/", BODY, 15, Action::Encrypt),
    api("PUT", "/v1/key/decrypt/", BODY, 15, Action::Decrypt),
    api("PUT", "/v1/key/hmac/", BODY, 15, Action::Hmac),
    api("GET", "/v1/policy/describe/", 0, 15, Action::DescribePolicy),
    api("GET", "/v1/policy/read/", 0, 15, Action::ReadPolicy),
    api("GET", "/v1/policy/list/", 0, 15, Action::ListPolicies),
    api(
        "GET",
        "/v1/identity/self/describe",
        0,
        15,
        Action::DescribeSelf,
    ),
    api(
        "GET",
        "/v1/identity/describe/",
        0,
        15,
        Action::DescribeIdentity,
    ),
    api("GET", "/v1/identity/list/", 0, 15, Action::ListIdentities),
    api("GET", "/v1/log/error", 0, 0, Action::ErrorLog),
    api("GET", "/v1/log/audit", 0, 0, Action::AuditLog),
];

/// A path, taken apart.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) api: &'static Api,
    /// What stands behind the path's `/`, decoded; empty for paths without an argument.
    pub(super) argument: String,
}

impl Route {
    /// Parses a path; `None` if it is none of ours.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        APIS.iter().find_map(|api| {
            let argument = match api.path.strip_suffix('/') {
                // A listing of everything is asked for without the slash, too.
                Some(stem) => match path.strip_prefix(stem)? {
                    "" if api.is_listing() => "",
                    rest => rest.strip_prefix('/')?,
                },
                None if *path == *api.path => "",
                None => return None,
            };
            Some(Self {
                api,
                argument: argument.to_owned(),
            })
        })
    }

    /// Refuses methods that the path does not know. POST stands for PUT everywhere.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Refusal> {
        let known = self.api.method;
        if method.as_str() == known || (known == "PUT" && method == Method::POST) {
            return Ok(());
        }
        Err(Refusal::method(method, known))
    }
}

impl Api {
    const fn is_listing(&self) -> bool {
        matches!(
            self.action,
            Action::ListKeys | Action::ListPolicies | Action::ListIdentities
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<(Action, &str)>) {
        let route = Route::parse(path);
        let found = route.as_ref().map(|r| (r.api.action, r.argument.as_str()));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths_name_their_action_and_argument() {
        check("/version", Some((Action::Version, "")));
        check("/v1/key/create/k", Some((Action::CreateKey, "k")));
        check("/v1/key/list", Some((Action::ListKeys, "")));
        check("/v1/key/list/", Some((Action::ListKeys, "")));
        check("/v1/key/list/%2A", Some((Action::ListKeys, "*")));
        check("/v1/key/describe/a%2Fb", Some((Action::DescribeKey, "a/b")));
        check(
            "/v1/identity/self/describe",
            Some((Action::DescribeSelf, "")),
        );
        check(
            "/v1/identity/describe/x",
            Some((Action::DescribeIdentity, "x")),
        );
        for other in [
            "",
            "/",
            "/v1",
            "/v1/key",
            "/v1/key/create",
            "/v1/key/creates/k",
            "/v1/statusx",
            "/v1/status/",
            "/v1/key/listing",
            "/v1/%FF",
            "/v1/enclaves",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn post_stands_for_put_and_for_nothing_else() {
        for (path, method, good) in [
            ("/v1/key/create/k", Method::PUT, true),
            ("/v1/key/create/k", Method::POST, true),
            ("/v1/key/create/k", Method::GET, false),
            ("/v1/key/delete/k", Method::POST, false),
            ("/v1/key/describe/k", Method::POST, false),
        ] {
            let route = Route::parse(path).unwrap();
            assert_eq!(route.check_method(&method).is_ok(), good, "{method} {path}");
        }
    }
}
