//! Listeners, TLS, client identity, limits, drain, health, metrics, access log.
