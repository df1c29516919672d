//! How a connection of HTTP/2 gets on, so that one on which nothing happens ends.
//!
//! hyper's keep-alive says whether the client's machine is there, not whether the client wants anything: one that answers
//! pings may stay for ever, idle, or with answers that wait for it because it gives them no room (flow control, RFC 9113,
//! section 5.2). HTTP/1 needs none of this: its next head has a deadline, and a write that waits has one (`transport.rs`).
//!
//! A stream that waits for its events (`sse.rs`) holds nobody up: it is asked, and has nothing to give.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// A write of no more than this may be a ping, its answer, or a goodbye: no part of an answer to a request.
const SMALL_TALK_BYTES: usize = 64;

/// What happens on one connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Whether it is one of HTTP/2, on which there was a request.
    is_shared: bool,
    /// Requests that are not answered to their end.
    open: usize,
    /// Answers that have more to give, and are not asked for it.
    held_up: usize,
    /// When something last got on.
    last: Instant,
}

impl Progress {
    /// Of a new connection.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { is_shared: false, open: 0, held_up: 0, last: Instant::now() })))
    }

    /// A request over HTTP/2 has come.
    pub fn open(&self) -> Open {
        let mut state = self.touch();
        state.is_shared = true;
        state.open += 1;
        Open { progress: self.clone(), is_held_up: false }
    }

    /// The client's machine has taken so many bytes.
    pub fn wrote(&self, bytes: usize) {
        if bytes > SMALL_TALK_BYTES {
            drop(self.touch());
        }
    }

    /// Resolves when there was no request for so long. What the client has still to take of the last answer counts as
    /// long as it takes some.
    pub async fn idle(&self, after: Duration) {
        self.lasts(after, |state| state.is_shared && state.open == 0).await;
    }

    /// Resolves when all answers have waited for so long.
    pub async fn stalled(&self, after: Duration) {
        self.lasts(after, |state| state.held_up > 0 && state.held_up == state.open).await;
    }

    /// Resolves when an answer has waited for so long, and nothing else got on either. The others may be quiet streams of
    /// other tenants behind one proxy: what is sent to keep these open is progress.
    pub async fn stalled_in_part(&self, after: Duration) {
        self.lasts(after, |state| state.held_up > 0).await;
    }

    /// Resolves when `holds`, and nothing got on for so long.
    async fn lasts(&self, after: Duration, holds: impl Fn(&State) -> bool) {
        loop {
            let now = Instant::now();
            let (is_so, since) = {
                let state = self.state();
                (holds(&state), state.last)
            };
            let due = since + after;
            if is_so && due <= now {
                return;
            }
            sleep_until(if is_so { due } else { now + after }).await;
        }
    }

    fn touch(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.last = Instant::now();
        state
    }

    /// No step under the lock can panic, so a poisoned one is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered to its end, until it is dropped.
#[derive(Debug)]
pub struct Open {
    progress: Progress,
    is_held_up: bool,
}

impl Open {
    /// The body of its answer.
    pub fn body(mut self, body: Body) -> Body {
        // Before it is asked for the first time, there must be room for its first byte.
        self.is_held_up = true;
        self.progress.touch().held_up += 1;
        Body::new(Watched { body, open: self })
    }

    fn is_asked(&mut self) {
        let mut state = self.progress.touch();
        state.held_up -= usize::from(std::mem::replace(&mut self.is_held_up, false));
    }

    fn has_given(&mut self) {
        self.is_held_up = true;
        self.progress.touch().held_up += 1;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.is_asked();
        self.progress.touch().open -= 1;
    }
}

/// A body that tells when it is asked, and when it has given.
struct Watched {
    body: Body,
    open: Open,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.open.is_asked();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if matches!(frame, Some(Ok(_))) {
            self.open.has_given();
        }
        Poll::Ready(frame)
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
    use http_body_util::BodyExt;
    use tokio::time::{sleep, timeout};

    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_some_time_after_its_last_request() {
        let progress = Progress::new();
        assert!(timeout(9 * AFTER, progress.idle(AFTER)).await.is_err(), "no request of HTTP/2 yet");
        let open = progress.open();
        assert!(timeout(9 * AFTER, progress.idle(AFTER)).await.is_err());
        drop(open);
        let began = Instant::now();
        sleep(AFTER / 2).await;
        progress.wrote(SMALL_TALK_BYTES);
        progress.idle(AFTER).await;
        assert_eq!(began.elapsed(), AFTER, "a ping is no progress");
        progress.wrote(SMALL_TALK_BYTES + 1);
        progress.idle(AFTER).await;
        assert_eq!(began.elapsed(), 2 * AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_asks_for_is_held_up_and_one_that_waits_for_events_is_not() {
        let progress = Progress::new();
        let began = Instant::now();
        let mut body = progress.open().body(Body::from("hello"));
        progress.stalled(AFTER).await;
        assert_eq!(began.elapsed(), AFTER);
        body.frame().await.unwrap().unwrap();
        progress.stalled(AFTER).await;
        assert_eq!(began.elapsed(), 2 * AFTER, "it has given, and is asked no more");
        assert!(body.frame().await.is_none());
        let mut silent =
            progress.open().body(Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>()));
        assert!(timeout(AFTER, silent.frame()).await.is_err());
        assert!(timeout(9 * AFTER, progress.stalled(AFTER)).await.is_err());
        let began = Instant::now();
        let held_up = progress.open().body(Body::from("hello"));
        assert!(timeout(AFTER / 2, silent.frame()).await.is_err());
        assert!(timeout(AFTER, progress.stalled(AFTER)).await.is_err(), "not all answers are");
        progress.stalled_in_part(2 * AFTER).await;
        assert_eq!(began.elapsed(), AFTER / 2 + 2 * AFTER, "since the silent one was asked last");
        drop((body, silent, held_up));
        progress.idle(AFTER).await;
    }
}
