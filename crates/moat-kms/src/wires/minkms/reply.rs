//! The messages of answers: field numbers as the protocol has them.

use std::time::Duration;

use moat_kms_client::Privilege;
use moat_kms_client::wire::Patterns;
use moat_types::{KeyName, UnixMillis};

use super::proto::Writer;
use crate::core::{EnclaveInfo, IdentityInfo, PolicyInfo};
use crate::rows::{Algorithm, Origin};
use crate::wires::ServerInfo;

/// `google.protobuf.Timestamp`.
pub(super) fn timestamp(out: &mut Writer, number: u32, at: UnixMillis) {
    out.message(number, |out| {
        // A negative number of seconds is a varint of ten bytes, as protobuf has it.
        out.number(1, at.0.div_euclid(1000) as u64);
        out.number(2, at.0.rem_euclid(1000) as u64 * 1_000_000);
    });
}

/// When something was made, and by whom: two fields that follow each other in every message.
fn origin(out: &mut Writer, first: u32, origin: &Origin) {
    timestamp(out, first, origin.at);
    if let Some(by) = origin.by {
        out.bytes(first + 1, by.to_string());
    }
}

/// A page of a listing: its items in field 1, and where the next page begins, itself included.
pub(super) fn page<T>(
    out: &mut Writer,
    items: impl IntoIterator<Item = T>,
    next: Option<&str>,
    item: impl Fn(&mut Writer, T),
) {
    for one in items {
        out.message(1, |out| item(out, one));
    }
    out.bytes(2, next.unwrap_or_default());
}

/// The cluster as this node sees it. Its nodes share a database and elect no leader, so each
/// tells of itself alone, and takes changes.
pub(super) fn cluster_status(out: &mut Writer, info: &ServerInfo, uptime: Duration) {
    const NODE_ID: u32 = 0;
    out.message(1, |out| {
        out.number(1, NODE_ID);
        out.message(2, |out| node_status(out, NODE_ID, info, uptime));
    });
}

fn node_status(out: &mut Writer, id: u32, info: &ServerInfo, uptime: Duration) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    out.bytes(1, &info.version);
    out.bytes(2, "v1");
    out.bytes(3, &info.host);
    out.message(4, |out| {
        out.number(1, uptime.as_secs());
        out.number(2, uptime.subsec_nanos());
    });
    out.bytes(5, "Leader");
    out.message(7, |out| {
        out.number(1, id);
        out.bytes(2, &info.host);
    });
    out.number(8, id);
    out.sint(9, i64::from(id));
    out.bytes(13, std::env::consts::OS);
    out.bytes(14, std::env::consts::ARCH);
    out.number(15, cpus);
    out.number(16, cpus);
}

/// An enclave.
pub(super) fn enclave(out: &mut Writer, info: &EnclaveInfo) {
    out.bytes(1, info.name.as_str());
    origin(out, 2, &info.created);
}

/// A version of a key.
pub(super) fn key(
    out: &mut Writer,
    name: &str,
    version: u32,
    algorithm: Algorithm,
    created: &Origin,
) {
    out.bytes(1, name);
    out.number(2, version);
    out.bytes(3, algorithm.as_str());
    origin(out, 4, created);
}

/// A policy without its rules, which have fields 2 and 3.
pub(super) fn policy_status(out: &mut Writer, name: &KeyName, created: &Origin) {
    out.bytes(1, name.as_str());
    origin(out, 4, created);
}

/// A policy with its rules.
pub(super) fn policy(out: &mut Writer, info: &PolicyInfo) {
    let document = info.policy.to_document();
    out.bytes(1, info.name.as_str());
    for (number, rules) in [(2, &document.allow), (3, &document.deny)] {
        for (command, patterns) in rules {
            out.message(number, |out| {
                out.bytes(1, command);
                out.message(2, |out| rule_set(out, patterns));
            });
        }
    }
    origin(out, 4, &info.created);
}

fn rule_set(out: &mut Writer, patterns: &Patterns) {
    for pattern in patterns.iter() {
        out.message(1, |out| {
            out.bytes(1, pattern);
            out.message(2, |_| {});
        });
    }
}

/// The number of a privilege. (Requests have it as text.)
const fn privilege(privilege: Privilege) -> u32 {
    match privilege {
        Privilege::SysAdmin => 1,
        Privilege::Admin => 2,
        Privilege::User => 3,
    }
}

/// An identity.
pub(super) fn identity(out: &mut Writer, info: &IdentityInfo) {
    out.bytes(1, info.identity.to_string());
    out.number(2, privilege(info.privilege));
    out.bytes(3, info.policy.as_ref().map_or("", KeyName::as_str));
    origin(out, 4, &info.created);
    out.number(6, u32::from(info.parent.is_some()));
    for account in &info.service_accounts {
        out.bytes(7, account.to_string());
    }
    for (name, value) in &info.tags {
        out.message(8, |out| {
            out.bytes(1, name);
            out.bytes(2, value);
        });
    }
}
