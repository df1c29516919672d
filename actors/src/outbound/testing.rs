//! What tests of outbound calls share: a receiver on the loopback address that records what it gets and answers as told.

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Uri};
use supervision::TaskGroup;

use super::{OutboundSettings, TargetRules};

/// The application does this first thing in its `main`.
pub(crate) fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only if another test of the process was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Development rules (loopback and plain HTTP allowed) and short limits.
pub(crate) fn outbound_settings() -> OutboundSettings {
    OutboundSettings {
        idle_per_host_max: 0,
        answer_max_bytes: 4_096,
        user_agent: "test/1".to_owned(),
        rules: TargetRules::own_network(),
        ..OutboundSettings::default()
    }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the receiver answers to its n-th request (from 0), and how long it thinks about it.
pub(crate) type Script = Arc<dyn Fn(usize) -> (Duration, Response) + Send + Sync>;

/// A receiver that runs until the test's runtime ends.
pub(crate) struct Receiver {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Answers at once.
    pub(crate) async fn answering<R: IntoResponse>(answer: impl Fn(usize) -> R + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(move |turn| (Duration::ZERO, answer(turn).into_response()))).await
    }

    /// Answers by a script.
    pub(crate) async fn start(script: Script) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let state = (Arc::clone(&requests), script);
        let app = Router::new().fallback(receive).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        TaskGroup::new("receiver").spawn("serve", async move { axum::serve(listener, app).await.unwrap() });
        Self { url, requests }
    }

    /// Its URL without a path.
    pub(crate) fn base(&self) -> String {
        self.url.trim_end_matches("/hook").to_owned()
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }
}

async fn receive(
    State((requests, script)): State<(Arc<Mutex<Vec<Received>>>, Script)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let turn = {
        let mut requests = requests.lock().unwrap();
        requests.push(Received { path: uri.path().to_owned(), headers, body });
        requests.len() - 1
    };
    let (delay, answer) = script(turn);
    tokio::time::sleep(delay).await;
    answer
}
