//! How the limits and times of the key manager are written.

use std::time::Duration;

use moat_kms::RateLimit;

/// Shorter leases would make the key manager part of every request; longer ones would make
/// disabling a key a promise for tomorrow.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 1..=3600;
/// As [`moat_kms::BODIES_BYTES_MAX`].
pub(super) const SIZE_LIMIT: &str = "64MiB";
/// As [`moat_kms::audit::AuditConfig::FILE_BYTES_MAX`].
pub(super) const AUDIT_FILE_SIZE: &str = "32MiB";
/// The largest of either.
const SIZE_MAX: usize = 4 << 30;

/// `off`, or operations a second for each identity.
pub(super) fn rate_limit(text: &str) -> Option<Option<RateLimit>> {
    if text == "off" {
        return Some(None);
    }
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok()?;
    (number > 0).then(|| Some(RateLimit::per_second(number)))
}

/// `64MiB`: at least what a request without a batch may have, at most what a machine has to spare.
pub(super) fn size_limit(text: &str) -> Option<usize> {
    let bytes = usize::try_from(bytes(text)?).ok()?;
    (2 << 20..=SIZE_MAX).contains(&bytes).then_some(bytes)
}

/// `32MiB`: at least some thousand lines.
pub(super) fn audit_file_size(text: &str) -> Option<u64> {
    bytes(text).filter(|bytes| (1 << 20..=SIZE_MAX as u64).contains(bytes))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match (text.strip_suffix("MiB"), text.strip_suffix("GiB")) {
        (Some(number), _) => (number, 1 << 20),
        (_, Some(number)) => (number, 1 << 30),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// `30s`, `5m` or `1h`, within [`LEASE_SECONDS`].
pub(super) fn lease_ttl(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds_each)?;
    LEASE_SECONDS
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_bounds() {
        assert_eq!(size_limit(SIZE_LIMIT), Some(moat_kms::BODIES_BYTES_MAX));
        assert_eq!(
            audit_file_size(AUDIT_FILE_SIZE),
            Some(moat_kms::audit::AuditConfig::FILE_BYTES_MAX)
        );
        assert_eq!(
            (size_limit("1GiB"), audit_file_size("1MiB")),
            (Some(1 << 30), Some(1 << 20))
        );
        for bad in [
            "",
            "64",
            "1MiB",
            "5GiB",
            "-1MiB",
            "64mib",
            "99999999999999GiB",
        ] {
            assert_eq!(size_limit(bad), None, "{bad}");
        }
    }
}
