//! HTTP/1.1 of our own: heads, bodies, and both ends of a connection.
//!
//! A store's and a proxy's work per small request is hardly more than this, so it is written for few
//! copies and allocations: a head is parsed once, into the types of `http`; a small body comes and
//! goes with its head; a connection that waits has no buffer at all.
//!
//! It is strict (RFC 9112 sections 2.2, 5.2, 6.1 and 6.3), since it sits between others: what two
//! readers could understand differently, such as a bare LF, a folded line, or a length beside a
//! coding, is refused by the server and no answer to the client.

pub mod body;
mod date;
pub mod head;
mod inbound;
mod outbound;
pub(crate) mod server;
pub(crate) mod write;

pub(crate) use body::{Decoder, Encoder, Framing};
pub(crate) use inbound::Inbound;
pub(crate) use outbound::Outbound;
