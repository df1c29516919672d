//! One WebSocket connection: frames from the hub to the client, requests from the client to the hub.
//!
//! What makes thousands of these cheap, and none of them harmful:
//!
//! - small buffers ([`tune`]): the library's defaults cost 134 KiB for an idle socket, these cost 5;
//! - everything that waits is written at once and flushed once, because a write is what costs;
//! - every write races against the hub's verdict on this subscriber, so a client that does not read cannot hold its
//!   task, its queue and its quota for longer than the hub allows;
//! - the time of day is the reaper's business: there is no timer here while a connection is well.
//!
//! Deliberately absent: compression (it costs each idle socket more than everything else together).

use std::time::Duration;

use actors::broadcast::{Batch, CloseReason, DrainPlan, Frame, Subscriber, Topic};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use futures_util::SinkExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Zero-filled before each read, so it is as small as a request.
const READ_BUFFER_BYTES: usize = 2 << 10;

/// Frames are gathered up to this much before the kernel is called.
const WRITE_BUFFER_BYTES: usize = 8 << 10;

/// The write buffer grows over its size by one frame at most, and no frame is larger than an outbox of 1 MiB.
const WRITE_BUFFER_BYTES_MAX: usize = 2 << 20;

/// The longest request: 64 topics of 128 bytes, with room.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Requests that could not be read before the connection is closed.
const BAD_REQUESTS_MAX: u32 = 16;

/// What a goodbye may take: the last write, and the client's answer to it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sets the buffers and limits of a connection, before it is upgraded.
pub fn tune(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(REQUEST_BYTES_MAX)
        .max_frame_size(REQUEST_BYTES_MAX)
}

/// Runs a connection until either side ends it, or `cancel` asks the client to come back later.
pub async fn serve(socket: WebSocket, subscriber: Subscriber, cancel: CancellationToken) {
    let mut connection = Connection { socket, subscriber, cancel, bad_requests: 0 };
    let end = match connection.converse().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    connection.part(end).await;
}

struct Connection {
    socket: WebSocket,
    /// Dropped with the connection, and with it every subscription.
    subscriber: Subscriber,
    cancel: CancellationToken,
    bad_requests: u32,
}

/// How it ends.
#[derive(Debug)]
enum End {
    /// The client said goodbye, or the transport is broken.
    Gone,
    /// We close, with this code and reason.
    Close(u16, &'static str),
    /// We go away, and the client is to come back after so many ms.
    ComeBack { after_ms: u64 },
}

/// What a client may ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Subscribe { topics: Vec<Topic> },
    Unsubscribe { topics: Vec<Topic> },
}

/// What we say besides events. A client ignores the types it does not know.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Reply<'a> {
    Welcome { topics: &'a [Topic] },
    Subscribed { topics: &'a [Topic] },
    Unsubscribed { topics: &'a [Topic] },
    Error { reason: String },
    Reconnect { after_ms: u64 },
}

enum Next {
    Batch(Batch),
    Message(Option<Result<Message, axum::Error>>),
}

impl Connection {
    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        let topics = self.subscriber.topics();
        self.reply(Reply::Welcome { topics: &topics }).await?;
        loop {
            // In random order: a client that is sent events without pause must still be heard.
            let next = select! {
                () = self.cancel.cancelled() => return Err(DrainPlan::default().reason().into()),
                batch = self.subscriber.next_batch() => Next::Batch(batch),
                message = self.socket.recv() => Next::Message(message),
            };
            match next {
                Next::Batch(Batch::Frames(frames)) => self.write(frames.into_iter().map(text)).await?,
                Next::Batch(Batch::Ping) => self.write([Message::Ping(Default::default())]).await?,
                Next::Batch(Batch::Closed(reason)) => return Err(reason.into()),
                Next::Message(message) => self.hear(message).await?,
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let message = message.ok_or(End::Gone)?.map_err(fault)?;
        self.subscriber.heard();
        match message {
            Message::Text(request) => self.answer(&request).await,
            Message::Binary(_) => Err(End::Close(close_code::UNSUPPORTED, "only text is understood here")),
            Message::Close(_) => Err(End::Gone),
            // A ping is answered by the library with the next read or write.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        }
    }

    async fn answer(&mut self, request: &str) -> Result<(), End> {
        match serde_json::from_str(request) {
            Ok(Request::Subscribe { topics }) => match self.subscriber.subscribe(&topics) {
                Ok(()) => self.reply(Reply::Subscribed { topics: &topics }).await,
                Err(refused) => self.reply(Reply::Error { reason: refused.to_string() }).await,
            },
            Ok(Request::Unsubscribe { topics }) => {
                self.subscriber.unsubscribe(&topics);
                self.reply(Reply::Unsubscribed { topics: &topics }).await
            }
            Err(_) if self.bad_requests == BAD_REQUESTS_MAX => {
                Err(End::Close(close_code::POLICY, "too many requests that could not be read"))
            }
            Err(error) => {
                self.bad_requests += 1;
                self.reply(Reply::Error { reason: error.to_string() }).await
            }
        }
    }

    async fn reply(&mut self, reply: Reply<'_>) -> Result<(), End> {
        self.write([reply.message()]).await
    }

    /// Writes all of them, then flushes once; gives up when the hub cuts this subscriber off, or when it has taken a
    /// farewell's time since we were asked to go.
    async fn write(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let Self { socket, subscriber, cancel, .. } = self;
        let writing = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        let late = async {
            cancel.cancelled().await;
            sleep(FAREWELL).await;
        };
        select! {
            written = writing => written.map_err(fault),
            reason = subscriber.cut() => Err(reason.into()),
            () = late => Err(End::Gone),
        }
    }

    /// Says goodbye and waits for the client's answer, as long as a farewell may take.
    async fn part(mut self, end: End) {
        let socket = &mut self.socket;
        let farewell = async {
            match end {
                End::Gone => {}
                End::Close(code, reason) => socket.send(close(code, reason)).await?,
                End::ComeBack { after_ms } => {
                    socket.feed(Reply::Reconnect { after_ms }.message()).await?;
                    socket.send(close(close_code::RESTART, "this instance is restarting")).await?;
                }
            }
            // Also sends our half of a close that the client began.
            while socket.recv().await.transpose()?.is_some() {}
            Ok::<(), axum::Error>(())
        };
        // A client that does not take its leave is left without.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Slow => Self::Close(close_code::POLICY, "slow consumer"),
            CloseReason::Unresponsive => Self::Close(close_code::POLICY, "no answer to a ping"),
            CloseReason::Revoked => Self::Close(close_code::POLICY, "this key opens nothing any more"),
            CloseReason::Draining { after_ms } => Self::ComeBack { after_ms },
        }
    }
}

impl Reply<'_> {
    fn message(&self) -> Message {
        // Plain strings and numbers cannot fail to be written.
        let text = serde_json::to_string(self)
            .unwrap_or_else(|error| json!({"type": "error", "reason": error.to_string()}).to_string());
        Message::Text(text.into())
    }
}

/// What the client did wrong, if the transport itself is fine.
fn fault(error: axum::Error) -> End {
    use tungstenite::Error;
    match error.into_inner().downcast_ref::<Error>() {
        Some(Error::Capacity(_)) => End::Close(close_code::SIZE, "a request may have 16 KiB"),
        Some(Error::Utf8(_)) => End::Close(close_code::INVALID, "text must be UTF-8"),
        Some(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => End::Gone,
        Some(Error::Protocol(_)) => End::Close(close_code::PROTOCOL, "not the WebSocket protocol"),
        _ => End::Gone,
    }
}

/// A frame is text by construction, so the check that this repeats cannot fail.
fn text(frame: Frame) -> Message {
    Message::Text(Utf8Bytes::try_from(frame.into_text()).unwrap_or_default())
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }))
}
