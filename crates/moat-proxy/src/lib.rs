//! Load balancer in front of S3 endpoints, and re-signing gateway.
//!
//! In its transparent mode bytes pass as they are. Host, path, query, headers and body reach the upstream as the client sent and signed them; only
//! hop-by-hop headers are removed and `X-Forwarded-*` set. Each request goes to the endpoint with
//! the fewest requests in flight ([`balance`]) of the first site that is up; endpoints are probed and
//! set aside after failures of their own ([`health`]); a request is tried elsewhere only when no
//! endpoint can have acted on it.
//!
//! The two rules for plain listeners live here because the proxy owns those listeners: customer keys
//! (SSE-C) are refused before a byte goes upstream, and HEAD answers lose the KMS key id, which is
//! what lets SDK v1 clients rename on an http endpoint.
//!
//! As a [`gateway`] it ends the signatures of clients, decides what they may do and how new objects are
//! encrypted, and signs anew; all else stays the same.
//!
//! Holds no body beyond a small replay buffer and one chunk that is being signed, and keeps no state on
//! disk. The transparent mode knows nothing about credentials and signatures.

pub mod balance;
pub mod config;
pub mod ellipses;
pub mod gateway;
pub mod health;
pub mod otlp;
pub mod status;
pub mod trace;

mod admin;
mod answer;
mod backend;
mod body;
mod bucket_list;
mod budget;
mod client_certificate;
mod error;
mod exchange;
mod expect;
mod headers;
mod observe;
mod plain;
mod probe;
mod proxy;
mod record;
mod resolve;
mod sidekick;
mod site;
mod upgrade;
mod watch;

pub use admin::Admin;
pub use config::{Config, HealthConfig, Mode, Network, SiteConfig, Upstream};
pub use error::Error;
pub use proxy::Proxy;
pub use status::Status;
