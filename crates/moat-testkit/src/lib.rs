//! Contract suites and faulty engines.
//!
//! The suites say what every engine promises; an engine's `tests/` call them with a way to make an
//! empty store. `faulty` wraps an engine so that the layers above can be tested against full disks
//! and I/O errors at chosen moments.

#![allow(
    clippy::unwrap_used,
    reason = "a suite is test code: a failed expectation is a panic"
)]

pub mod blob_contract;
pub mod faulty;
pub mod meta_contract;
pub mod postgres;
pub mod sim_disk;
