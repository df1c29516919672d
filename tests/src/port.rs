//! Ports for servers that start later, or more than once.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of this machine that is nobody else's while this value lives, also when no server listens on it yet or any more:
/// the system chooses it for no other socket, and whoever asks there is refused.
///
/// It is bound and never listens. Whoever binds it by its number with `SO_REUSEADDR`, as servers do, may listen: socket(7).
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// One that the system chooses.
    pub fn take() -> Port {
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Port { address: held.local_addr().unwrap(), _held: held }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// Where a server listens that was given it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_port_is_for_one_server_after_another_and_for_nobody_else_meanwhile() {
        let port = Port::take();
        for _ in 0..2 {
            assert!(TcpStream::connect(port.address()).await.is_err(), "nobody listens");
            let server = TcpListener::bind(port.address()).await.unwrap();
            TcpStream::connect(port.address()).await.unwrap();
            assert!(TcpListener::bind(port.address()).await.is_err(), "there is a server");
            drop(server);
        }
        let held: Vec<_> = std::iter::repeat_with(Port::take).take(500).collect();
        let numbers: BTreeSet<_> = held.iter().chain([&port]).map(Port::number).collect();
        assert_eq!(numbers.len(), 501, "each has its own");
    }
}
