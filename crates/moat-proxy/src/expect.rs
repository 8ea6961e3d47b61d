//! `Expect: 100-continue` end to end (RFC 9110 section 10.1.1).
//!
//! The client's body is asked for, which is what makes our listener send `100 Continue`, only when
//! the upstream has sent its own, or has been silent for a while. A final answer that comes first,
//! such as 403, reaches a client that has sent nothing yet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderMap, Request};
use moat_net::Body;
use moat_net::client::OnContinue;
use tokio::time::Sleep;

use crate::config::CONTINUE_TIMEOUT;

/// Whether a request waits for `100 Continue` before its body.
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Opened by the upstream's `100 Continue`.
#[derive(Clone, Default)]
pub(crate) struct Continue(Arc<Shared>);

#[derive(Default)]
struct Shared {
    received: AtomicBool,
    waiting: AtomicWaker,
}

impl Continue {
    /// Has `request` open this signal when the upstream answers 100.
    pub(crate) fn listen(&self, request: &mut Request<Body>) {
        let shared = Arc::clone(&self.0);
        let listener = OnContinue::new(move || {
            shared.received.store(true, Ordering::Release);
            shared.waiting.wake();
        });
        request.extensions_mut().insert(listener);
    }
}

/// Holds a body back until its signal opens.
pub(crate) struct Gate {
    signal: Continue,
    patience: Option<Pin<Box<Sleep>>>,
}

impl Gate {
    pub(crate) const fn new(signal: Continue) -> Self {
        Self {
            signal,
            patience: None,
        }
    }

    /// Ready when the body may be sent.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &self.signal.0;
        shared.waiting.register(cx.waker());
        if shared.received.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        // Armed at the first poll, which is when the head is on its way.
        self.patience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_TIMEOUT)))
            .as_mut()
            .poll(cx)
    }
}
