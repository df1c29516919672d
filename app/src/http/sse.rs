//! One stream of Server-Sent Events: from the hub to a client that only listens, over plain HTTP.
//!
//! ```text
//! hub --> Subscriber --> this task, which gathers what is ready --> a channel of one --> the body, asked by hyper
//! ```
//!
//! The body is asked only while the connection takes what it has; a client that does not read stops that, the task waits
//! on its channel, and the hub sees it fall behind as it does with a socket. Then nobody would notice an end of the body
//! either, so the connection itself is hung up. One of HTTP/2 carries other requests, perhaps of other tenants behind the same
//! proxy: there the body ends in an error as soon as it is asked again, and the connection is hung up only if it holds up
//! the end of its listener.
//!
//! The stream, by <https://html.spec.whatwg.org/multipage/server-sent-events.html>:
//!
//! - `retry:` and the event `welcome` begin it, the latter with `"recovered":false` for a client that named its
//!   `Last-Event-ID`: what it missed is not replayed, and it is told so;
//! - an event of the tenant is a `message`, with its id, and the same JSON as on a socket;
//! - `gap` stands where events are missing;
//! - a comment every 15 s keeps proxies from closing it;
//! - `retry:` and the event `reconnect` end it when this process or its listener goes away.
//!
//! Deliberately absent: replay, and compression.

use std::{convert::Infallible, io, time::Duration};

use actors::broadcast::{Batch, CloseReason, DrainPlan, Frame, Subscriber, Topic};
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::poll_fn;
use serde::Serialize;
use tokio::{
    select,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::serve::Hangup;

#[cfg(test)]
mod tests;

/// So long nothing is said before a comment is: half of what proxies wait by default at least.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A comment.
const COMMENT: Bytes = Bytes::from_static(b": still here\n\n");

/// Blocks are gathered up to this much before the connection is given them; a larger block goes by itself.
const CHUNK_BYTES: usize = 16 << 10;

/// What a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client whose stream ends without a word comes back after this long, in ms.
const RETRY_MS: u64 = 2_000;

/// Whether a client said what it saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returning {
    /// It comes for the first time, as far as it says.
    No,
    /// It named its last event.
    Yes,
}

/// A stream before its task runs.
pub struct Stream {
    /// Dropped with the task, and with it every subscription.
    subscriber: Subscriber,
    out: mpsc::Sender<Result<Bytes, Last>>,
    cancel: CancellationToken,
    hangup: Hangup,
}

/// The stream of a subscriber, and the body that carries it. `cancel` asks the client to come back later.
pub fn open(subscriber: Subscriber, cancel: CancellationToken, hangup: Hangup) -> (Stream, Body) {
    let (out, mut chunks) = mpsc::channel(1);
    let body = poll_fn(move |cx| {
        chunks.poll_recv(cx).map(|chunk| match chunk? {
            Ok(chunk) => Some(Ok(chunk)),
            Err(Last::End) => None,
            Err(Last::Cut) => Some(Err(io::Error::other("the stream was cut"))),
        })
    });
    (Stream { subscriber, out, cancel, hangup }, Body::from_stream(body))
}

/// What the body says when there is nothing more.
enum Last {
    /// That this was all.
    End,
    /// That something is missing.
    Cut,
}

/// How it ends.
#[derive(Debug, PartialEq)]
enum End {
    /// The client has gone.
    Gone,
    /// It is cut off in the middle: it does not read, or we cannot wait.
    Cut,
    /// We go away, and the client is to come back after so many ms.
    ComeBack { after_ms: u64 },
}

/// What is said besides events.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Notice<'a> {
    Welcome {
        topics: &'a [Topic],
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
    },
    Reconnect {
        after_ms: u64,
    },
}

impl Stream {
    /// Runs until either side ends it.
    pub async fn run(mut self, returning: Returning) {
        let end = match self.flow(returning).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.part(end).await;
    }

    async fn flow(&mut self, returning: Returning) -> Result<Infallible, End> {
        let topics = self.subscriber.topics();
        let recovered = (returning == Returning::Yes).then_some(false);
        self.write(told(RETRY_MS, &Notice::Welcome { topics: &topics, recovered })).await?;
        loop {
            let next = select! {
                () = self.cancel.cancelled() => return Err(DrainPlan::default().reason().into()),
                () = self.out.closed() => return Err(End::Gone),
                next = timeout(KEEP_ALIVE, self.subscriber.next_batch()) => next,
            };
            match next {
                Ok(Batch::Frames(frames)) => {
                    for chunk in chunks(frames) {
                        self.write(chunk).await?;
                    }
                }
                Ok(Batch::Closed(reason)) => return Err(reason.into()),
                Ok(Batch::Ping) | Err(_) => self.write(COMMENT).await?,
            }
            // It cannot answer a ping; that it takes what it is sent is all that can be known of it.
            self.subscriber.heard();
        }
    }

    /// Hands a chunk to the body; gives up when the hub cuts this subscriber off, or when it has taken a farewell's time
    /// since we were asked to go.
    async fn write(&self, chunk: Bytes) -> Result<(), End> {
        let late = async {
            self.cancel.cancelled().await;
            sleep(FAREWELL).await;
        };
        select! {
            sent = self.out.send(Ok(chunk)) => sent.map_err(|_| End::Gone),
            reason = self.subscriber.cut() => Err(reason.into()),
            () = late => Err(End::Cut),
        }
    }

    /// Ends the body, after a goodbye. A client that does not take its leave is left without.
    async fn part(self, end: End) {
        let Self { subscriber, out, hangup, cancel } = self;
        // Its place and its quota are free from here on.
        drop(subscriber);
        let leave = match end {
            End::Gone => return,
            End::Cut if !hangup.is_shared() => return hangup.hang_up(),
            End::Cut => vec![Err(Last::Cut)],
            End::ComeBack { after_ms } => {
                vec![Ok(told(after_ms, &Notice::Reconnect { after_ms })), Err(Last::End)]
            }
        };
        let leaving = async {
            for each in leave {
                // Whoever has gone has left, too.
                let _ = out.send(each).await;
            }
            out.closed().await;
            // The listener ends too, so the connection ends with this answer if its client reads.
            if !hangup.is_shared() {
                hangup.ended().await;
            }
        };
        let late = async {
            if hangup.is_shared() {
                cancel.cancelled().await;
            }
            sleep(FAREWELL).await;
        };
        select! {
            () = leaving => {}
            () = late => hangup.hang_up(),
        }
    }
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Draining { after_ms } => Self::ComeBack { after_ms },
            CloseReason::Slow | CloseReason::Unresponsive | CloseReason::Revoked => Self::Cut,
        }
    }
}

impl Notice<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "welcome",
            Self::Reconnect { .. } => "reconnect",
        }
    }
}

/// A notice behind the time after which the client is to come back whatever ends the stream.
fn told(retry_ms: u64, notice: &Notice<'_>) -> Bytes {
    // Plain strings and numbers can always be written.
    let text = serde_json::to_string(notice).unwrap_or_default();
    let block = Frame::notice(notice.name(), &text).into_block();
    [format!("retry: {retry_ms}\n\n").as_bytes(), &block].concat().into()
}

/// What is ready, in as few chunks as there is room for. One block by itself is not even copied.
fn chunks(frames: Vec<Frame>) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    let mut blocks = frames.into_iter().map(Frame::into_block).peekable();
    while let Some(first) = blocks.next() {
        let fits = |gathered: usize| move |next: &Bytes| gathered + next.len() <= CHUNK_BYTES;
        let Some(second) = blocks.next_if(fits(first.len())) else {
            chunks.push(first);
            continue;
        };
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        chunk.extend_from_slice(&first);
        chunk.extend_from_slice(&second);
        while let Some(next) = blocks.next_if(fits(chunk.len())) {
            chunk.extend_from_slice(&next);
        }
        chunks.push(chunk.freeze());
    }
    chunks
}
