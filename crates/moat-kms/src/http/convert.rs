//! From the core's types to those of the wire.

use moat_kms_client::wire::{self, Base64, SecretBase64};
use moat_types::UnixMillis;

use crate::core::{self, Decider};
use crate::policy::{Command, Verdict};
use crate::rows::Origin;

fn at(time: UnixMillis) -> String {
    time.to_timestamp().to_string()
}

fn when(origin: &Origin) -> String {
    at(origin.at)
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
            deletion_at: info.deletion.map(|deletion| at(deletion.due)),
            deletion_by: info.deletion.map(|deletion| who(&deletion.requested)),
            versions: u32::try_from(info.versions).unwrap_or(u32::MAX),
            exportable: info.exportable,
            rotation_seconds: info.rotation.map(|every| every.as_secs()),
            next_rotation_at: info.next_rotation.map(at),
            guards: Vec::new(),
        }
    }
}

impl From<core::Guarded> for wire::Guarded {
    fn from(guarded: core::Guarded) -> Self {
        Self {
            lake: guarded.lake.to_string(),
            buckets: guarded.buckets,
            objects: guarded.objects,
            bytes: guarded.bytes,
            counted_at: at(guarded.counted),
            counted_by: guarded.by,
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
            imported: info.imported,
        }
    }
}

impl From<core::ExportedVersion> for wire::ExportedVersion {
    fn from(version: core::ExportedVersion) -> Self {
        Self {
            version: version.version.number(),
            algorithm: version.algorithm.as_str().to_owned(),
            material: SecretBase64(version.material),
            mac_material: version.mac_material.map(SecretBase64),
        }
    }
}

impl From<core::DataKey> for wire::DataKey {
    fn from(made: core::DataKey) -> Self {
        Self {
            version: made.version.number(),
            plaintext: SecretBase64(made.plaintext),
            ciphertext: Base64(made.ciphertext),
        }
    }
}

impl From<core::Encrypted> for wire::Ciphertext {
    fn from(made: core::Encrypted) -> Self {
        Self {
            version: made.version.number(),
            ciphertext: Base64(made.ciphertext),
        }
    }
}

impl From<core::Decrypted> for wire::Plaintext {
    fn from(opened: core::Decrypted) -> Self {
        Self {
            version: opened.version.number(),
            plaintext: SecretBase64(opened.plaintext),
        }
    }
}

impl From<core::MacCode> for wire::MacCode {
    fn from(made: core::MacCode) -> Self {
        Self {
            version: made.version.number(),
            code: Base64(made.code),
        }
    }
}

/// What decides, and the same in words.
pub(super) fn decision(decision: &core::Decision, command: Command, name: &str) -> wire::Decision {
    let effect = match decision.verdict {
        Verdict::DeniedByRule => "deny",
        Verdict::Allowed | Verdict::NotAllowed => "allow",
    };
    let rule = decision.pattern.as_ref();
    let rule = rule.map(|pattern| format!("{effect} {command} {pattern}"));
    let (mut privilege, mut policy) = (None, None);
    let reason = match (&decision.by, &rule) {
        (Decider::Privilege(level), _) => {
            privilege = Some(*level);
            format!("{level} may do everything here")
        }
        (Decider::Policy(name), Some(rule)) => {
            policy = Some(name.to_string());
            format!("policy {name} says: {rule}")
        }
        (Decider::Policy(policy_name), None) => {
            policy = Some(policy_name.to_string());
            format!("no rule of policy {policy_name} is about {command} on {name}")
        }
        (Decider::Nothing(reason), _) => reason.to_string(),
    };
    wire::Decision {
        allowed: decision.verdict == Verdict::Allowed,
        privilege,
        policy,
        rule,
        reason,
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
            parent: info.parent,
            service_accounts: info.service_accounts,
            tags: info.tags,
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
