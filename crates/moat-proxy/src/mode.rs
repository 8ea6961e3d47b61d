//! What a mode does with a request that is about to be sent on. Whatever changes requests does it
//! here: after the rules of the listener and the headers of the hop, before an endpoint is chosen.

use http::request::Parts;

use crate::answer::Refusal;
use crate::config::Mode;

/// Prepares a request for the upstream.
///
/// # Errors
/// The answer that the client gets instead.
pub(crate) fn before_sending(mode: Mode, _head: &mut Parts) -> Result<(), Refusal> {
    match mode {
        Mode::Transparent => Ok(()),
    }
}
