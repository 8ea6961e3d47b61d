//! Listeners, TLS, client identity, limits, drain, health, metrics, access log.
//!
//! What every server of Moat shares below its own protocol: a [`Listener`] hands each request to a
//! [`Service`] together with the facts of its connection ([`Peer`]), [`Drain`] ends all of it
//! without cutting what runs, [`HttpClient`] speaks to other servers, and [`tls`] holds the
//! certificates of both sides and reloads them when their files change.
//!
//! Knows nothing about S3 or keys, reads no configuration, and answers nothing by itself except
//! what the protocol demands before a service can see a request (malformed or oversized heads).

pub mod access_log;
pub mod health;
pub mod metrics;
pub mod tls;

mod activity;
mod body;
mod certificate;
pub mod client;
mod connection;
mod drain;
mod error;
pub mod h1;
pub mod limits;
mod listener;
mod open_files;
mod peer;
pub mod proxy_protocol;
mod request_id;
mod socket;
mod tunnel;
mod workers;

pub use body::{Body, BodyIdle, BoxError, IdleTimeoutBody};
pub use certificate::CertificateFacts;
pub use client::{ClientConfig, ClientError, ClientErrorKind, Endpoint, HttpClient};
pub use drain::Drain;
pub use error::Error;
pub use limits::Limits;
pub use listener::{Listener, ListenerConfig, ProxyProtocolFrom, Service};
pub use open_files::raise_open_files_limit;
pub use peer::{ClientKey, Peer};
pub use request_id::{RequestIds, request_id};
pub use tunnel::{Offer, TUNNEL_IDLE_TIMEOUT};
pub use workers::Workers;
