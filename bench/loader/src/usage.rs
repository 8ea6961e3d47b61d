//! CPU time of processes, from `/proc/PID/stat`: that of the process and of its ended children; and
//! their memory.

use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of CPU times in `/proc`: fixed at 1/100 s in the Linux interface, whatever the kernel's own tick is.
const TICK: Duration = Duration::from_millis(10);

/// What the processes have used since they started.
///
/// # Errors
/// If one of them does not exist.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<Duration> {
    pids.iter().try_fold(Duration::ZERO, |sum, pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("reading the CPU time of process {pid}"))?;
        let ticks =
            ticks_in(&stat).with_context(|| format!("/proc/{pid}/stat is not understood"))?;
        Ok(sum + TICK * ticks)
    })
}

/// The sum of utime, stime, cutime and cstime, which are fields 14 to 17 (proc_pid_stat(5)).
fn ticks_in(stat: &str) -> Option<u32> {
    // The second field is the command in parentheses and may hold spaces and parentheses itself.
    let (_, after) = stat.rsplit_once(") ")?;
    let times: Vec<u32> = after
        .split(' ')
        .skip(11)
        .take(4)
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    (times.len() == 4).then(|| times.iter().sum())
}

/// Resident memory of the processes, in bytes.
///
/// # Errors
/// If one of them does not exist.
pub(crate) fn resident_bytes_of(pids: &[u32]) -> Result<u64> {
    pids.iter().try_fold(0, |sum, pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("reading the memory of process {pid}"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .with_context(|| format!("/proc/{pid}/status is not understood"))?;
        Ok(sum + kib * 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_command_with_spaces_and_parentheses() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 90 0 0 0 150 25 3 4 20 0 9 0 80 1 2 3";
        assert_eq!(ticks_in(stat), Some(150 + 25 + 3 + 4));
    }

    #[test]
    fn a_cut_line_is_not_a_number() {
        assert_eq!(ticks_in("7 (x) S 1 7 7 0 -1 4194304 90 0 0 0 150 25"), None);
    }

    #[test]
    fn this_process_has_used_some_time_or_none_but_exists() {
        assert!(cpu_of(&[std::process::id()]).is_ok());
        assert!(cpu_of(&[u32::MAX]).is_err());
        assert!(resident_bytes_of(&[std::process::id()]).unwrap() > 1 << 16);
        assert!(resident_bytes_of(&[u32::MAX]).is_err());
    }
}
