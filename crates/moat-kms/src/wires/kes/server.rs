//! What the server says about itself: readiness, status, metrics, its paths, and its logs.

use std::time::Instant;

use http::StatusCode;
use moat_meta::MetaStore;

use super::answer::{Answer, Refusal, empty, json};
use super::stream::{audit_line, lines, log_line};
use super::{Call, Place, api, message};
use crate::audit::Facts;
use crate::policy::{Command, PathPolicy};
use crate::rows::Scope;
use crate::wires::ServerInfo;

impl<M: MetaStore> Call<M> {
    /// Whether the caller may ask about the server. MinIO does so every few seconds, so only
    /// refusals go to the audit.
    async fn check(&self, what: &str) -> Result<(), Refusal> {
        let scope = Scope::Enclave(self.enclave.clone());
        let command = Command::ServerStatus;
        self.core
            .permit_quietly(&self.caller, &scope, command, what)
            .await?;
        Ok(())
    }

    pub(super) async fn ready(&self) -> Answer {
        self.check(PathPolicy::READY).await?;
        self.core.check_ready().await.map_err(|e| {
            tracing::warn!(error = %e, "not ready");
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "key store is not reachable")
        })?;
        Ok(empty())
    }

    pub(super) async fn status(&self, started: Instant, info: &ServerInfo) -> Answer {
        self.check(PathPolicy::STATUS).await?;
        let asked = Instant::now();
        let reached = self.core.check_ready().await.is_ok();
        // A reachable store has a latency of at least one.
        let latency = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        let processors = processors();
        json(&message::Status {
            version: &info.version,
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            uptime: started.elapsed().as_secs(),
            num_cpu: processors,
            num_cpu_used: processors,
            mem_heap_used: resident_bytes(),
            mem_stack_used: 0,
            keystore_latency: reached.then(|| latency.max(1)),
            keystore_unreachable: !reached,
            keystore_unavailable: !reached,
        })
    }

    pub(super) async fn metrics(&self, started: Instant) -> Answer {
        self.core.check_metrics(&self.caller).await?;
        let processors = processors() as f64;
        metrics::gauge!("kes_system_up_time").set(started.elapsed().as_secs_f64());
        metrics::gauge!("kes_system_num_cpu").set(processors);
        metrics::gauge!("kes_system_num_cpu_used").set(processors);
        metrics::gauge!("kes_system_mem_heap_used").set(resident_bytes() as f64);
        // KES's client refuses families of several series, and those that it does not know are such.
        let text = moat_net::metrics::render_prefix("kes_");
        Ok(moat_net::metrics::text_response(text))
    }

    pub(super) async fn apis(&self) -> Answer {
        self.check(PathPolicy::API).await?;
        json(&api::APIS)
    }

    /// The warnings and errors of the server's log, as they happen.
    pub(super) async fn error_log(&self) -> Answer {
        let (scope, command) = (Scope::System, Command::LogRead);
        self.core
            .permit(&self.caller, &scope, command, PathPolicy::ERROR_LOG)
            .await?;
        Ok(lines(
            crate::server_log::follow(),
            self.core.ending(),
            log_line,
        ))
    }

    /// The audit of the enclave, as it happens. Those who are of no enclave ask for all of it,
    /// unless they name one.
    pub(super) async fn audit_log(&self) -> Answer {
        let scope = match self.place {
            Place::Home | Place::Named => Scope::Enclave(self.enclave.clone()),
            Place::Default => Scope::System,
        };
        // Followed before the line about it is written, so that the reader sees its own first.
        let follower = self.core.follow_audit();
        self.core
            .permit(
                &self.caller,
                &scope,
                Command::AuditRead,
                PathPolicy::AUDIT_LOG,
            )
            .await?;
        Ok(lines(follower, self.core.ending(), move |facts: &Facts| {
            let shown = match &scope {
                Scope::System => true,
                Scope::Enclave(name) => facts.asked.enclave.as_ref() == Some(name),
            };
            shown.then(|| audit_line(facts))
        }))
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// Memory that the process holds. What KES calls its heap is what Go took from the system.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64).saturating_mul(PAGE_BYTES)
}
