//! Memory that is never written to swap: keys lie in it, in places that no program chooses (the
//! expanded key of a cipher, an answer on its way out), so the whole process is locked and not a
//! corner of it.
//!
//! `MCL_ONFAULT` locks a page when it is first touched, so nothing grows by it. The limit counts
//! address space, not pages in use, and allocations fail beyond it; so memory is locked only where there is
//! no limit. Without swap there is nowhere for keys to go, and that is only noted.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `CAP_IPC_LOCK`, which lifts the limit.
const CAP_IPC_LOCK: u32 = 14;

/// What to do about a limit.
const FIX: &str = "set LimitMEMLOCK=infinity in the systemd unit, `ulimit -l unlimited` in the shell, or give the container the capability IPC_LOCK";

/// Locks all memory of the process, now and later, or says why not and what to do.
pub(crate) fn lock() {
    if !may_lock_all() {
        return tell("the limit on locked memory (RLIMIT_MEMLOCK) is too low");
    }
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(all) {
        Ok(()) => tracing::debug!("memory is locked"),
        Err(error) => tell(&format!("the system does not lock memory ({error})")),
    }
}

fn tell(reason: &str) {
    if has_swap() {
        tracing::warn!("keys may be written to swap, because {reason}; {FIX}, or switch swap off");
    } else {
        tracing::info!(
            "memory is not locked, because {reason}; there is no swap that keys could be written to, but if there will be, {FIX}"
        );
    }
}

/// Whether locking can't make a later allocation fail.
fn may_lock_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if holds_capability(&status) {
        return true;
    }
    let limit = getrlimit(Resource::Memlock);
    if limit.maximum.is_some() {
        return false;
    }
    let raised = Rlimit {
        current: None,
        maximum: None,
    };
    limit.current.is_none() || setrlimit(Resource::Memlock, raised).is_ok()
}

/// Whether a process's status shows `CAP_IPC_LOCK` among its effective capabilities.
fn holds_capability(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|bits| bits & (1 << CAP_IPC_LOCK) != 0)
}

/// Whether any swap is on. If that can't be told, it is.
fn has_swap() -> bool {
    // The first line is a heading.
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(holds_capability("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(holds_capability("CapEff:\t000001ffffffffff\n"));
        assert!(!holds_capability(
            "CapPrm:\t0000000000004000\nCapEff:\t0000000000000000\n"
        ));
        assert!(!holds_capability(""));
    }
}
