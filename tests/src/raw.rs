//! Connections spoken to byte by byte, for what no client would send.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::Client;

/// What was read of a connection, and how it ended.
#[derive(Debug)]
pub struct Heard {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// From the connection to the end.
    pub took: Duration,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed it.
    Closed,
    /// The server closed it before it had read all that we sent.
    Reset,
    /// It was open still when the time was over.
    Open,
}

impl Heard {
    /// As text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The status of each answer over HTTP/1, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let text = self.text();
        let lines = text.split("HTTP/1.1 ").skip(1);
        lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
    }
}

/// Sends `bytes` in one go and hears all that comes back within `within`.
pub async fn exchange(listener: &Client, bytes: &[u8], within: Duration) -> Heard {
    let mut stream = TcpStream::connect(listener.authority()).await.expect("the listener accepts");
    // A server that has heard enough may close before it has read all.
    let _ = timeout(within, stream.write_all(bytes)).await;
    hear(stream, within).await
}

/// Sends `first` at once and then `rest` byte by byte, with a pause before each, and hears what comes back meanwhile.
pub async fn trickle(listener: &Client, first: &[u8], rest: &[u8], pause: Duration) -> Heard {
    let began = Instant::now();
    let mut stream = TcpStream::connect(listener.authority()).await.expect("the listener accepts");
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    let mut sent = stream.write_all(first).await;
    for byte in rest {
        match timeout(pause, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => return Heard { bytes, end: End::Closed, took: began.elapsed() },
            Ok(Err(_)) => return Heard { bytes, end: End::Reset, took: began.elapsed() },
            Ok(Ok(_)) | Err(_) => {}
        }
        if sent.is_err() {
            return Heard { bytes, end: End::Reset, took: began.elapsed() };
        }
        sent = stream.write_all(&[*byte]).await;
    }
    Heard { bytes, end: End::Open, took: began.elapsed() }
}

/// Hears all that comes within `within`.
pub async fn hear(mut stream: TcpStream, within: Duration) -> Heard {
    let began = Instant::now();
    let deadline = tokio::time::Instant::now() + within;
    let mut bytes = Vec::new();
    let end = loop {
        match timeout_at(deadline, stream.read_buf(&mut bytes)).await {
            Ok(Ok(0)) => break End::Closed,
            Ok(Ok(_)) => {}
            Ok(Err(_)) => break End::Reset,
            Err(_) => break End::Open,
        }
    };
    Heard { bytes, end, took: began.elapsed() }
}
