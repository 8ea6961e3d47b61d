//! From the core's types to those of the wire.

use moat_kms_client::wire::{self, SecretBase64};
use moat_types::{SecretBuffer, UnixMillis};

use crate::core::{self, Decider};
use crate::json::push_object;
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

/// Appends what `wire::DataKey` says.
pub(super) fn data_key(out: &mut SecretBuffer, made: &core::DataKey) {
    let plaintext = made.plaintext.expose();
    let values: &[(_, &[u8])] = &[("plaintext", plaintext), ("ciphertext", &made.ciphertext)];
    push_object(out, Some(made.version), values);
}

/// Appends what `wire::Ciphertext` says.
pub(super) fn encrypted(out: &mut SecretBuffer, made: &core::Encrypted) {
    push_object(out, Some(made.version), &[("ciphertext", &made.ciphertext)]);
}

/// Appends what `wire::Plaintext` says.
pub(super) fn decrypted(out: &mut SecretBuffer, opened: &core::Decrypted) {
    let plaintext = opened.plaintext.expose();
    push_object(out, Some(opened.version), &[("plaintext", plaintext)]);
}

/// Appends what `wire::MacCode` says.
pub(super) fn mac_code(out: &mut SecretBuffer, made: &core::MacCode) {
    push_object(out, Some(made.version), &[("code", &made.code)]);
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

#[cfg(test)]
mod tests {
    use moat_kms_client::wire::Base64;
    use moat_types::{KeyVersion, SecretBytes};
    use serde::Serialize;

    use super::*;

    #[test]
    fn answers_with_keys_are_written_as_serde_writes_the_types_of_the_wire() {
        fn check<T>(write: fn(&mut SecretBuffer, &T), value: &T, same: &impl Serialize) {
            let mut out = SecretBuffer::default();
            write(&mut out, value);
            let expected = serde_json::to_string(same).unwrap();
            assert_eq!(std::str::from_utf8(&out), Ok(expected.as_str()));
        }
        let version = KeyVersion::new(12).unwrap();
        let secret = || SecretBytes::new(vec![0xfe; 33]);
        let made = core::DataKey {
            version,
            plaintext: secret(),
            ciphertext: vec![1, 2, 3, 4],
        };
        let same = wire::DataKey {
            version: 12,
            plaintext: SecretBase64(secret()),
            ciphertext: Base64(vec![1, 2, 3, 4]),
        };
        check(data_key, &made, &same);
        let made = core::Encrypted {
            version,
            ciphertext: vec![5; 100],
        };
        let same = wire::Ciphertext {
            version: 12,
            ciphertext: Base64(vec![5; 100]),
        };
        check(encrypted, &made, &same);
        let opened = core::Decrypted {
            version,
            plaintext: secret(),
        };
        let same = wire::Plaintext {
            version: 12,
            plaintext: SecretBase64(secret()),
        };
        check(decrypted, &opened, &same);
        let made = core::MacCode {
            version,
            code: vec![6; 32],
        };
        let same = wire::MacCode {
            version: 12,
            code: Base64(vec![6; 32]),
        };
        check(mac_code, &made, &same);
    }
}
