//! A listening socket that survives whoever serves it.
//!
//! When the server of a listener panics and is started again, the socket must not be gone meanwhile: clients that
//! connect in between wait in the system's queue instead of being refused, and a port that the system chose stays the
//! same.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, TcpStream};

/// An address to listen on, and the socket once it is bound. Cheap to clone; all clones are the same socket.
#[derive(Debug, Clone)]
pub struct Listener {
    wanted: SocketAddr,
    bound: Arc<Mutex<Option<StdListener>>>,
}

impl Listener {
    /// Nothing is bound yet.
    pub fn new(wanted: SocketAddr) -> Self {
        Self { wanted, bound: Arc::default() }
    }

    /// The socket, bound the first time; to be called on the runtime that will serve it.
    ///
    /// # Errors
    /// What the system says, with the address.
    pub fn open(&self) -> io::Result<Bound> {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = match bound.as_ref() {
            Some(listener) => listener.try_clone(),
            None => bind(self.wanted).and_then(|listener| {
                let other = listener.try_clone()?;
                *bound = Some(listener);
                Ok(other)
            }),
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("listen on {}: {error}", self.wanted));
        let socket = listener.and_then(TcpListener::from_std).map_err(named)?;
        Ok(Bound { socket, listener: self.clone() })
    }

    /// Where it listens; the real port if the system chose it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.local_addr().ok()
    }

    /// Listens no longer: the next client is refused.
    fn close(&self) {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A listener that is being served.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: TcpListener,
    listener: Listener,
}

impl Bound {
    /// A client that waits in the system's queue, if there is one. It asks the system itself: the runtime may not have
    /// heard of that client yet.
    pub(super) fn waiting(&self) -> Option<(TcpStream, SocketAddr)> {
        let bound = self.listener.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, peer) = bound.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    }

    /// Listens no longer, and nor does any other clone: the process is going away.
    pub(super) fn close(self) {
        self.listener.close();
    }
}

/// The standard library sets `SO_REUSEADDR` on Unix, so that a restart does not wait for old connections to time out.
fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Listener {
        Listener::new("127.0.0.1:0".parse().unwrap())
    }

    #[tokio::test]
    async fn the_port_stays_and_clients_wait_while_nobody_serves() {
        let listener = any();
        assert_eq!(listener.address(), None);
        drop(listener.open().unwrap());
        let address = listener.address().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (_, peer) = listener.open().unwrap().socket.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_closed_listener_refuses() {
        let listener = any();
        let bound = listener.open().unwrap();
        let address = listener.address().unwrap();
        bound.close();
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = any();
        let _held = first.open().unwrap();
        let error = Listener::new(first.address().unwrap()).open().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("listen on {}", first.address().unwrap())), "{error}");
    }
}
