//! A subscriber on `/v1/socket`.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::Client;

/// No frame of a test may be waited for longer.
const FRAME_TIMEOUT: Duration = Duration::from_secs(20);

/// An open WebSocket that has been welcomed.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close code, 1006 if the connection ended without one.
    pub code: u16,
    /// The close reason.
    pub reason: String,
}

impl Socket {
    /// Opens a socket with the client's key, subscribes to `topics` and reads the welcome.
    ///
    /// # Panics
    ///
    /// If it is refused or not welcomed.
    pub async fn open(api: &Client, topics: &[&str]) -> Socket {
        let mut socket = Socket::try_open(api, topics).await.unwrap_or_else(|status| panic!("refused with {status}"));
        let welcome = socket.frame().await.expect("open");
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        socket
    }

    /// Opens a socket without reading from it.
    ///
    /// # Errors
    ///
    /// The status with which the upgrade was refused.
    pub async fn try_open(api: &Client, topics: &[&str]) -> Result<Socket, u16> {
        let topics: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let url = format!("ws://{}/v1/socket?{}", api.authority(), topics.join("&"));
        let mut request = url.into_client_request().unwrap();
        if let Some(key) = api.key() {
            request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        match connect_async(request).await {
            Ok((stream, _)) => Ok(Socket { stream }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no answer to the upgrade: {error}"),
        }
    }

    /// The next JSON frame, or how the socket was closed.
    ///
    /// # Errors
    ///
    /// [`Closed`] when the server has closed it.
    pub async fn frame(&mut self) -> Result<Value, Closed> {
        loop {
            let message = tokio::time::timeout(FRAME_TIMEOUT, self.stream.next()).await.expect("a frame in time");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(closed(None)),
            }
        }
    }

    /// The next event, other frames skipped.
    ///
    /// # Panics
    ///
    /// If the socket is closed before.
    pub async fn event(&mut self) -> Value {
        loop {
            let frame = self.frame().await.unwrap_or_else(|closed| panic!("an event was expected: {closed:?}"));
            if frame["type"] == "event" {
                return frame;
            }
        }
    }

    /// Reads on until the server closes the socket; the frames before are returned too.
    pub async fn until_closed(&mut self) -> (Vec<Value>, Closed) {
        let mut frames = Vec::new();
        loop {
            match self.frame().await {
                Ok(frame) => frames.push(frame),
                Err(closed) => return (frames, closed),
            }
        }
    }

    /// Sends one JSON frame.
    pub async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends any text.
    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }
}

fn closed(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(frame) => Closed { code: frame.code.into(), reason: frame.reason.to_string() },
        None => Closed { code: 1006, reason: String::new() },
    }
}
