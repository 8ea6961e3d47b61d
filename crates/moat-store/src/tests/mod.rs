//! Tests of the store below HTTP: real engines on a temporary folder, a key ring in memory.

mod census;
mod copies;
mod faults;
mod listing;
mod multipart;
mod rewrap;
mod world;
