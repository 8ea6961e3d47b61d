//! The body type of all requests and responses: nothing, bytes at hand, or a stream.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

/// The error of a body. What it says goes to the log, never to the peer: the only thing that a
/// peer sees of a body that fails is a connection that ends early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body.
///
/// `Content-Length` follows from the size hint: exact for [`Body::empty`], [`Body::full`] and
/// streams that know their length. An error ends the connection (HTTP/1.1) or stream (HTTP/2), so
/// that the peer can't take what it got for the whole.
pub struct Body(Kind);

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>),
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Bytes at hand, sent as one frame.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(Kind::Full(bytes))
        }
    }

    /// The same again, if it is at hand.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Kind::Empty => Some(Self::empty()),
            Kind::Full(bytes) => Some(Self(Kind::Full(bytes.clone()))),
            Kind::Incoming(_) | Kind::Stream(_) => None,
        }
    }

    /// A stream of frames. Polled only while the peer takes what came before.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(Box::pin(http_body_util::BodyExt::map_err(
            body,
            Into::into,
        ))))
    }
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Self(Kind::Incoming(body))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Full(_) => "Body(full)",
            Kind::Incoming(_) => "Body(incoming)",
            Kind::Stream(_) => "Body(stream)",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut self.get_mut().0;
        match this {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Incoming(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

/// Ends a body with [`BodyIdle`] when no frame comes for a while.
///
/// For request bodies: whoever waits for a client's bytes decides how long. The wait counts from
/// the moment when a frame is asked for, so a reader that is slow itself never cuts its client.
pub struct IdleTimeoutBody<B> {
    body: B,
    timeout: Duration,
    // One timer for all frames, made when the first wait begins (most bodies never wait) and pushed
    // back when the next one does.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// No frame of a body came in time.
#[derive(Debug, thiserror::Error)]
#[error("the peer sent nothing of its body for {} s", .0.as_secs())]
pub struct BodyIdle(pub Duration);

impl<B> IdleTimeoutBody<B> {
    /// Wraps `body`; each frame may take up to `timeout`.
    pub const fn new(body: B, timeout: Duration) -> Self {
        Self {
            body,
            timeout,
            sleep: None,
            waiting: false,
        }
    }
}

impl<B> HttpBody for IdleTimeoutBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let sleep = match &mut this.sleep {
            Some(sleep) => {
                if !this.waiting {
                    sleep.as_mut().reset(Instant::now() + this.timeout);
                }
                sleep
            }
            None => this
                .sleep
                .insert(Box::pin(tokio::time::sleep(this.timeout))),
        };
        this.waiting = true;
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyIdle(this.timeout).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn full_body_is_one_frame_with_exact_size() {
        let body = Body::full("abc");
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert!(Body::full("").is_end_stream());
    }

    #[tokio::test]
    async fn stream_keeps_size_hint_and_turns_errors_into_box_errors() {
        let body = Body::stream(http_body_util::Full::new(Bytes::from_static(b"xy")));
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "xy");
    }

    /// Never yields a frame and never ends.
    struct Silent;
    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_timeout_ends_a_silent_body_but_not_before() {
        let began = Instant::now();
        let mut body = IdleTimeoutBody::new(Silent, Duration::from_secs(7));
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(error.is::<BodyIdle>());
        assert!(began.elapsed() >= Duration::from_secs(7));
    }
}
