//! The server: accepts connections, gives each a task, and ends them in order.
//!
//! A client has a deadline for each thing it does: the head of a request, a pause between two, what it takes of an
//! answer (`transport.rs`, and for HTTP/2 `progress.rs`). The body is the business of the gate (`limits.rs`).
//!
//! While the process drains, answers over HTTP/1 bear `Connection: close`, so that clients go elsewhere by themselves.
//! When `stop` fires nobody is accepted any more, idle connections are closed, and what was accepted is finished, for as
//! long as the budget lasts. Sockets (WebSocket) are no connections any more by then: their own tasks end them, as they end
//! streams, whose connections then end with them.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use supervision::TaskGroup;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::lifecycle::Lifecycle;
use super::listener::Bound;
use super::progress::Progress;
use super::transport::Transport;
use super::{edge, head};

telemetry::labels! {
    /// A listener, by its name in the tree.
    pub struct OfListener<'a> { listener: &'a str }
}

telemetry::declare_metrics! {
    /// Connections open now, by listener; sockets are counted by the broadcaster.
    pub static OPEN: UpDownCounter<OfListener> = ("http.server.open_connections", "{connection}");
    /// Connections that could not be accepted: the process is out of file descriptors, mostly.
    pub static ACCEPT_FAILED: Counter<OfListener> = ("http.server.accept.failed", "{connection}");
}

/// How long to wait after the system refused to accept: it does so for want of something that others must give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 128;

/// When the stop comes, a client that has just connected gets this long to send the request that is on its way.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_millis(500);

/// Of the time to finish, this much is kept to tell that it was not enough.
const FINISH_RESERVE: Duration = Duration::from_millis(300);

/// What a server needs besides its listener.
#[derive(Clone)]
pub struct Server {
    /// The name in metrics and logs: `api`, `admin`.
    pub name: &'static str,
    /// What is served.
    pub router: Router,
    /// Says when connections are asked to go.
    pub lifecycle: Arc<Lifecycle>,
    /// Where the connections' tasks belong.
    pub tasks: TaskGroup,
    /// What a connection may take.
    pub limits: ConnectionLimits,
    /// What the end may take, from `stop` on.
    pub finish_within: Duration,
}

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How many are open at once; more wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send the head of a request, and how long it may be idle between two.
    pub header_read: Duration,
    /// How long a client may take nothing of its answer.
    pub write_stall: Duration,
    /// How long a connection of HTTP/2 may have no request open before it is asked to go.
    pub idle: Duration,
    /// The longest head of a request, in bytes; at least 8192.
    pub header_bytes: usize,
}

/// Serves until `stop` fires and what was accepted is finished.
///
/// If the process is draining by then, nobody listens any more when this returns; otherwise only this server ends, and
/// clients wait for the next one.
///
/// # Errors
/// None of a connection; only that the listener cannot be used at all.
pub async fn serve(listener: Bound, server: Server, stop: CancellationToken) -> io::Result<()> {
    listener.socket.local_addr()?;
    let limit = server.limits.connections.min(Semaphore::MAX_PERMITS);
    let door = Door { server, places: Arc::new(Semaphore::new(limit)), stop };
    let name = door.server.name;
    OPEN.born(OfListener { listener: name });
    ACCEPT_FAILED.born(OfListener { listener: name });
    tokio::select! {
        biased;
        () = door.stop.cancelled() => {}
        () = door.keep_open(&listener.socket) => {}
    }
    if door.server.lifecycle.is_draining() {
        door.take_the_rest(&listener);
        listener.close();
    } else {
        drop(listener);
    }
    door.finish(limit).await;
    Ok(())
}

/// Lets connections in, as many as there are places.
struct Door {
    server: Server,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Door {
    async fn keep_open(&self, socket: &TcpListener) {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            match socket.accept().await {
                Ok((stream, peer)) => self.let_in(stream, peer, place),
                Err(error) => {
                    ACCEPT_FAILED.add(1, OfListener { listener: self.server.name });
                    tracing::warn!(listener = self.server.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whoever waits in the system's queue believes to be connected, and has perhaps sent a request already.
    fn take_the_rest(&self, listener: &Bound) {
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            let Some((stream, peer)) = listener.waiting() else {
                return;
            };
            self.let_in(stream, peer, place);
        }
    }

    fn let_in(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let connection = Connection { server: self.server.clone(), peer, stop: self.stop.clone() };
        self.server.tasks.spawn("connection", async move {
            connection.run(stream).await;
            drop(place);
        });
    }

    /// All places are free again when the last connection has ended.
    async fn finish(&self, limit: usize) {
        let all = u32::try_from(limit).unwrap_or(u32::MAX);
        let within = self.server.finish_within.saturating_sub(FINISH_RESERVE);
        if tokio::time::timeout(within, self.places.acquire_many(all)).await.is_err() {
            let left = limit.saturating_sub(self.places.available_permits());
            tracing::warn!(listener = self.server.name, left, "requests were not finished in time");
        }
    }
}

/// Who is connected: in the extensions of each of its requests.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Ends a connection from within an answer that nobody takes, for its body is not asked any more then. In the extensions
/// of each request.
#[derive(Debug, Clone, Default)]
pub struct Hangup {
    wanted: CancellationToken,
    ended: CancellationToken,
    is_shared: bool,
}

impl Hangup {
    /// The same for a request of this version.
    fn of(&self, version: Version) -> Self {
        Self { is_shared: version > Version::HTTP_11, ..self.clone() }
    }

    /// Whether other requests may be under way on the connection, perhaps of other tenants behind one proxy.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Closes the connection as it is, with all that is under way on it.
    pub fn hang_up(&self) {
        self.wanted.cancel();
    }

    /// Resolves when the connection has ended, in whatever way.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

struct Connection {
    server: Server,
    peer: SocketAddr,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let _counted = Counted::new(self.server.name);
        // Small answers must not wait for more of them.
        let _ = stream.set_nodelay(true);
        let (heard, hangup, progress) = (CancellationToken::new(), Hangup::default(), Progress::new());
        let _ended = hangup.ended.clone().drop_guard();
        let (builder, limits) = (self.builder(), self.server.limits);
        let service = self.service(heard.clone(), hangup.clone(), progress.clone());
        let stream = TokioIo::new(Transport::new(stream, limits.write_stall, progress.clone()));
        let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
        let to_its_end = async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = self.time_to_go(&heard) => {}
                () = progress.idle(limits.idle) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        let ended = tokio::select! {
            ended = to_its_end => ended,
            () = self.silent(&heard) => return,
            () = hangup.wanted.cancelled() => return,
            () = progress.stalled(limits.write_stall) => return,
            () = progress.stalled_in_part(limits.idle.max(limits.write_stall)) => return,
            // It was asked to go, and neither goes nor takes the rest of its answers.
            () = progress.idle(limits.idle + limits.write_stall) => return,
        };
        if let Err(error) = ended {
            tracing::debug!(listener = self.server.name, peer = %self.peer, %error, "a connection ended early");
        }
    }

    /// Answers requests; `heard` fires at the first.
    fn service(
        &self,
        heard: CancellationToken,
        hangup: Hangup,
        progress: Progress,
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static> + use<> {
        let (router, lifecycle) = (self.server.router.clone(), Arc::clone(&self.server.lifecycle));
        let peer = Peer(self.peer);
        service_fn(move |mut request: Request<Incoming>| {
            heard.cancel();
            request.extensions_mut().insert(peer);
            let hangup = hangup.of(request.version());
            let open = hangup.is_shared.then(|| progress.open());
            request.extensions_mut().insert(hangup);
            let answer = answer(router.clone(), Arc::clone(&lifecycle), request);
            async move {
                let response = answer.await?;
                Ok(match open {
                    Some(open) => response.map(|body| open.body(body)),
                    None => response,
                })
            }
        })
    }

    /// An idle connection goes at once, one that is answering goes after its answer, and a new one after its first
    /// request.
    async fn time_to_go(&self, heard: &CancellationToken) {
        self.stop.cancelled().await;
        let _ = tokio::time::timeout(FIRST_REQUEST_WITHIN, heard.cancelled()).await;
    }

    fn builder(&self) -> Builder<Streams> {
        let limits = self.server.limits;
        let mut builder = Builder::new(Streams(self.server.tasks.clone()));
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            .max_buf_size(limits.header_bytes.max(8_192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.header_read)
            .keep_alive_timeout(limits.header_read);
        builder
    }

    /// Resolves when the first request does not come. The builder reads the first bytes itself, to tell HTTP/1 from
    /// HTTP/2, and has no time limit there.
    async fn silent(&self, heard: &CancellationToken) {
        tokio::time::sleep(self.server.limits.header_read).await;
        if heard.is_cancelled() {
            std::future::pending().await
        }
    }
}

async fn answer(router: Router, lifecycle: Arc<Lifecycle>, request: Request<Incoming>) -> Result<Response, Infallible> {
    let version = request.version();
    let ambiguity = head::ambiguity(&request);
    let is_refused = ambiguity.is_some();
    let mut response = match ambiguity {
        Some(problem) => edge::refused(request.headers(), &problem),
        None => router.oneshot(request.map(Body::new)).await?,
    };
    if (is_refused || lifecycle.is_draining()) && version <= Version::HTTP_11 && !is_upgrade(&response) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn is_upgrade(response: &Response) -> bool {
    response.status() == http::StatusCode::SWITCHING_PROTOCOLS
}

/// The streams of HTTP/2 connections, as tasks of the same group.
#[derive(Clone)]
struct Streams(TaskGroup);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn("stream", stream);
    }
}

struct Counted(&'static str);

impl Counted {
    fn new(listener: &'static str) -> Self {
        OPEN.add(1, OfListener { listener });
        Self(listener)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.add(-1, OfListener { listener: self.0 });
    }
}

#[cfg(test)]
mod tests;
