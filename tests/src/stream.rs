//! A subscriber on `/v1/events`: Server-Sent Events as a stranger reads them.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::Client;

/// No block of a test may be waited for longer.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// An open stream that has been welcomed.
pub struct EventStream {
    chunks: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    read: String,
    /// The first event.
    pub welcome: Value,
    /// The last `retry:`, in ms.
    pub retry_ms: Option<u64>,
}

/// One event of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its name.
    pub event: String,
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: Value,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The body was complete.
    Cleanly,
    /// The connection broke in the middle.
    Cut,
}

impl EventStream {
    /// Opens a stream with the client's key and reads the welcome.
    ///
    /// # Panics
    ///
    /// If it is refused or not welcomed.
    pub async fn open(api: &Client, topics: &[&str]) -> EventStream {
        EventStream::from(Self::request(api, topics)).await
    }

    /// A request for a stream, to be sent by [`EventStream::from`].
    pub fn request(api: &Client, topics: &[&str]) -> RequestBuilder {
        let topics: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let path = format!("/v1/events?{}", topics.join("&"));
        api.request(Method::GET, &path).header("accept", "text/event-stream")
    }

    /// Sends the request and reads the welcome.
    ///
    /// # Panics
    ///
    /// If it is refused or not welcomed.
    pub async fn from(request: RequestBuilder) -> EventStream {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let chunks = response.bytes_stream().boxed();
        let mut stream = EventStream { chunks, read: String::new(), welcome: Value::Null, retry_ms: None };
        let welcome = stream.block().await.expect("open");
        assert_eq!(welcome.event, "welcome", "{welcome:?}");
        stream.welcome = welcome.data;
        stream
    }

    /// The next event, comments skipped and `retry:` kept; or how the stream ended.
    ///
    /// # Errors
    ///
    /// [`Ended`] when it has ended.
    pub async fn block(&mut self) -> Result<Block, Ended> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                match self.understand(&block) {
                    Some(block) => return Ok(block),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(BLOCK_TIMEOUT, self.chunks.next()).await.expect("a block in time");
            match chunk {
                Some(Ok(chunk)) => self.read.push_str(std::str::from_utf8(&chunk).unwrap()),
                Some(Err(_)) => return Err(Ended::Cut),
                None => return Err(Ended::Cleanly),
            }
        }
    }

    /// The next `message`, other events skipped.
    ///
    /// # Panics
    ///
    /// If the stream ends before.
    pub async fn message(&mut self) -> Block {
        loop {
            let block = self.block().await.unwrap_or_else(|ended| panic!("a message was expected: {ended:?}"));
            if block.event == "message" {
                return block;
            }
        }
    }

    /// Reads on to the end; the events before are returned too.
    pub async fn until_ended(&mut self) -> (Vec<Block>, Ended) {
        let mut blocks = Vec::new();
        loop {
            match self.block().await {
                Ok(block) => blocks.push(block),
                Err(ended) => return (blocks, ended),
            }
        }
    }

    fn understand(&mut self, block: &str) -> Option<Block> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        self.retry_ms = field("retry").map(|ms| ms.parse().unwrap()).or(self.retry_ms);
        let data = serde_json::from_str(field("data")?).unwrap();
        Some(Block { event: field("event").unwrap_or("message").to_owned(), id: field("id").map(str::to_owned), data })
    }
}
