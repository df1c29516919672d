//! A TCP proxy that can become a black hole: connections stay open, new ones are taken, and nothing passes.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy on a free port of loopback. Dropping it ends it for new connections.
pub struct Proxy {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Lets everything through to `target`, `host:port`.
    pub async fn start(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, open) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target.clone(), open.clone()));
            }
        });
        Proxy { address, is_open, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes, not even the end of a connection.
    pub fn swallow(&self) {
        self.is_open.send_replace(false);
    }

    /// Lets everything through again, what was held back first.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(client: TcpStream, target: String, mut open: watch::Receiver<bool>) {
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pass(from_client, to_server, open.clone()) => {}
        () = pass(from_server, to_client, open) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut open: watch::Receiver<bool>) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await;
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        match read {
            Ok(read @ 1..) if to.write_all(&buffer[..read]).await.is_ok() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_swallowed_comes_when_it_is_open_again() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(echo.local_addr().unwrap().to_string()).await;
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = echo.accept().await.unwrap();
        proxy.swallow();
        client.write_all(b"x").await.unwrap();
        let mut buffer = [0; 1];
        assert!(tokio::time::timeout(Duration::from_millis(100), server.read(&mut buffer)).await.is_err());
        proxy.open();
        assert_eq!((server.read(&mut buffer).await.unwrap(), &buffer), (1, b"x"));
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
    }
}
