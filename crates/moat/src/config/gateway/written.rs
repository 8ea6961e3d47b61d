//! The `[gateway]` tables as they are written. A field that is not here is an error.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub(super) credentials: Option<PathBuf>,
    pub(super) profile: Option<String>,
    pub(super) web_identity: Option<WrittenWebIdentity>,
    pub(super) region: Option<String>,
    pub(super) client_region: Option<String>,
    pub(super) sign_body: Option<String>,
    #[serde(default)]
    pub(super) domains: Vec<String>,
    #[serde(default)]
    pub(super) users: Vec<WrittenUser>,
    #[serde(default)]
    pub(super) upstreams: Vec<WrittenStore>,
    #[serde(default)]
    pub(super) buckets: Vec<WrittenRoute>,
    #[serde(default)]
    pub(super) encryption: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUser {
    pub(super) name: String,
    pub(super) credentials: PathBuf,
    pub(super) profile: Option<String>,
    #[serde(default)]
    pub(super) policies: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenWebIdentity {
    pub(super) token_file: PathBuf,
    pub(super) role_arn: Option<String>,
    pub(super) session_name: Option<String>,
    pub(super) endpoint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenStore {
    pub(super) name: String,
    pub(super) endpoints: Vec<String>,
    #[serde(default)]
    pub(super) ca: Vec<PathBuf>,
    pub(super) health_path: Option<String>,
    pub(super) region: Option<String>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) profile: Option<String>,
    pub(super) web_identity: Option<WrittenWebIdentity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRoute {
    pub(super) name: String,
    pub(super) upstream: Option<String>,
    pub(super) upstream_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRule {
    pub(super) bucket: String,
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) add: Option<String>,
    pub(super) key: Option<String>,
    pub(super) require: Option<String>,
    #[serde(default)]
    pub(super) replace: bool,
}
