//! From the core's types to those of the wire.

use moat_kms_client::wire;

use crate::core;
use crate::rows::Origin;

fn when(origin: &Origin) -> String {
    origin.at.to_timestamp().to_string()
}

fn who(origin: &Origin) -> String {
    origin.by.map(|by| by.to_string()).unwrap_or_default()
}

pub(super) fn listing<A, B: From<A>>(page: core::Page<A>) -> wire::Listing<B> {
    wire::Listing {
        items: page.items.into_iter().map(B::from).collect(),
        next: page.next,
    }
}

impl From<core::EnclaveInfo> for wire::EnclaveInfo {
    fn from(info: core::EnclaveInfo) -> Self {
        Self {
            name: info.name.to_string(),
            created_at: when(&info.created),
            created_by: who(&info.created),
        }
    }
}

impl From<core::KeyInfo> for wire::KeyInfo {
    fn from(info: core::KeyInfo) -> Self {
        Self {
            name: info.name.to_string(),
            enabled: info.disabled.is_none(),
            version: info.version.number(),
            algorithm: info.algorithm.as_str().to_owned(),
            created_at: when(&info.created),
            created_by: who(&info.created),
            disabled_at: info.disabled.as_ref().map(when),
            disabled_by: info.disabled.as_ref().map(who),
        }
    }
}

impl From<core::KeyVersionInfo> for wire::KeyVersionInfo {
    fn from(info: core::KeyVersionInfo) -> Self {
        Self {
            version: info.version.number(),
            algorithm: info.algorithm.as_str().to_owned(),
            created_at: when(&info.created),
            created_by: who(&info.created),
        }
    }
}

impl From<core::IdentityInfo> for wire::IdentityInfo {
    fn from(info: core::IdentityInfo) -> Self {
        Self {
            identity: info.identity,
            privilege: info.privilege,
            policy: info.policy.map(|policy| policy.to_string()),
            created_at: when(&info.created),
            created_by: who(&info.created),
        }
    }
}

/// Without the rules: as it stands in a listing.
impl From<core::PolicyInfo> for wire::PolicyInfo {
    fn from(info: core::PolicyInfo) -> Self {
        Self {
            name: info.name.to_string(),
            created_at: when(&info.created),
            created_by: who(&info.created),
            policy: None,
        }
    }
}

/// With the rules.
pub(super) fn policy(info: core::PolicyInfo) -> wire::PolicyInfo {
    let rules = info.policy.to_document();
    wire::PolicyInfo {
        policy: Some(rules),
        ..info.into()
    }
}
