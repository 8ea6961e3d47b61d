//! A machine whose clock is far off makes certificates that nobody accepts, refuses good requests
//! and dates audit lines wrongly. It is told before anything is written.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, bail};
use moat_pki::{CertificateInfo, needs_renewal};
use moat_types::UnixMillis;

/// How far ahead of the clock a file's time may lie: network file systems stamp files with the
/// server's clock, and small steps back are normal when time is synchronised at boot.
const FILE_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);

/// Refuses a clock that stands before what is known to have happened already: the making of the
/// CA, or the last write to one of `files`. Files that do not exist are passed over.
pub(crate) fn check_past(now: UnixMillis, ca: &CertificateInfo, files: &[PathBuf]) -> Result<()> {
    if now < ca.not_before {
        bail!(
            "this machine's clock says {}, but the CA of this folder was made at {}; set the clock",
            show(now),
            show(ca.not_before)
        );
    }
    for file in files {
        let Some(written) = modified(file) else {
            continue;
        };
        if written.0 > now.0 + i64::try_from(FILE_AHEAD_MAX.as_millis()).unwrap_or(i64::MAX) {
            bail!(
                "this machine's clock says {}, but {} was written at {}; set the clock",
                show(now),
                file.display(),
                show(written)
            );
        }
    }
    Ok(())
}

/// Refuses an expired certificate. Either the clock is ahead, or nothing ran here for long; only a
/// person can tell, so nothing is renewed by itself.
pub(crate) fn check_expiry(
    now: UnixMillis,
    path: &Path,
    certificate: &CertificateInfo,
) -> Result<()> {
    if now > certificate.not_after {
        bail!(
            "the certificate {} expired at {}, and this machine's clock says {}; set the clock if it is wrong, \
             else delete the certificate file (not its key) and start again for a new one",
            path.display(),
            show(certificate.not_after),
            show(now)
        );
    }
    Ok(())
}

/// Whether a certificate that is still good should be replaced.
pub(crate) fn is_due(now: UnixMillis, certificate: &CertificateInfo) -> bool {
    needs_renewal(certificate, now)
}

/// An instant as people write it, in UTC.
pub(crate) fn show(at: UnixMillis) -> String {
    at.to_timestamp()
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string()
}

fn modified(path: &Path) -> Option<UnixMillis> {
    let time = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use moat_pki::{CA_VALIDITY, CaRequest, CertificateAuthority, KeyAlgorithm};
    use moat_types::{Clock, SystemClock, SystemRandom};

    use super::*;

    fn ca() -> CertificateInfo {
        let request = CaRequest {
            common_name: "CA".into(),
            algorithm: KeyAlgorithm::EcdsaP256,
            validity: CA_VALIDITY,
            permitted: Vec::new(),
        };
        CertificateAuthority::create(&request, &SystemClock, &SystemRandom)
            .unwrap()
            .info()
            .clone()
    }

    fn shifted(hours: i64) -> UnixMillis {
        UnixMillis(SystemClock.now().0 + hours * 3_600_000)
    }

    #[test]
    fn a_clock_before_the_ca_is_refused() {
        let ca = ca();
        check_past(shifted(0), &ca, &[]).unwrap();
        let error = check_past(shifted(-2), &ca, &[]).unwrap_err().to_string();
        assert!(error.contains("set the clock"), "{error}");
    }

    #[test]
    fn a_clock_before_the_last_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state");
        std::fs::write(&file, b"x").unwrap();
        let mut ca = ca();
        ca.not_before = UnixMillis(0);
        let files = [file, folder.path().join("absent")];
        check_past(shifted(0), &ca, &files).unwrap();
        assert!(check_past(shifted(-1), &ca, &files).is_err());
    }

    #[test]
    fn an_expired_certificate_is_refused_with_both_causes() {
        let ca = ca();
        check_expiry(shifted(0), Path::new("ca.crt"), &ca).unwrap();
        let late = UnixMillis(ca.not_after.0 + 1);
        let error = check_expiry(late, Path::new("ca.crt"), &ca)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("clock") && error.contains("ca.crt"),
            "{error}"
        );
    }
}
