//! Waits for a server that is just being started, by doing what its first client would do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::content::SMALL_BYTES;
use crate::report;
use crate::request::Target;
use crate::work::put;

/// Between two attempts: small against any start, and cheap beside one.
const PAUSE: Duration = Duration::from_millis(2);

/// Says that it is trying, then writes one small object as soon as that works, and says so.
///
/// # Errors
/// If it has not worked within `within`; the last error is the cause.
pub(crate) async fn first_put(target: &Target, within: Duration) -> Result<()> {
    report::line(&json!({ "trying": true }));
    let (start, mut attempts) = (Instant::now(), 0_u64);
    loop {
        attempts += 1;
        match attempt(target).await {
            Ok(()) => break,
            Err(error) if start.elapsed() > within => {
                return Err(error)
                    .with_context(|| format!("no PUT has worked within {} s", within.as_secs()));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    report::line(&json!({ "written": true, "attempts": attempts }));
    Ok(())
}

async fn attempt(target: &Target) -> Result<()> {
    let request = target.sign(put("/first".to_owned(), 0, SMALL_BYTES))?;
    let mut connection = target.connect().await?;
    request
        .send(&mut connection, crate::wire::Keep::Count)
        .await?;
    Ok(())
}
