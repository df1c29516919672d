//! What the tests of channels share: a receiver on the loopback address that records what it gets and answers as told.

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Uri};
use secrecy::SecretString;
use supervision::TaskGroup;
use tokio::time::Instant;
use uuid::Uuid;

use super::Destination;
use super::addresses::Reach;
use super::client::OutboundSettings;
use super::target::{Schemes, TargetRules};
use crate::model::{Clock, TenantId, new_id};
use crate::store::{Channel, Delivery, KeyHash, NewChannel, NewDelivery, SharedStore, SqliteOptions, SqliteStore};

/// A secret both sides know.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

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
        connect_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(10),
        idle_per_host_max: 0,
        idle_timeout: Duration::from_secs(1),
        answer_max_bytes: 4_096,
        user_agent: "test/1".to_owned(),
        rules: TargetRules { reach: Reach::PublicAndPrivate, schemes: Schemes::HttpAndHttps, ports: Vec::new() },
    }
}

/// A destination at `url` that signs with [`SECRET`].
pub(crate) fn destination(url: &str) -> Destination {
    Destination { url: url.to_owned(), secret: SecretString::from(SECRET) }
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

/// A store in a directory of its own, with one tenant.
pub(crate) struct Kept {
    pub(crate) store: SharedStore,
    pub(crate) tenant: TenantId,
    _directory: tempfile::TempDir,
}

impl Kept {
    pub(crate) async fn open() -> Self {
        Self::by(Clock::system()).await
    }

    /// With a clock of the test's own.
    pub(crate) async fn by(clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("test.db").display());
        let store: SharedStore =
            Arc::new(SqliteStore::open(&url, SqliteOptions { clock, ..SqliteOptions::default() }).await.unwrap());
        let tenant = TenantId::new("tenant-a").unwrap();
        store.create_tenant(&tenant, &KeyHash::of("key-a")).await.unwrap();
        Self { store, tenant, _directory: directory }
    }

    /// A channel to `url`.
    pub(crate) async fn channel(&self, kind: &str, url: &str) -> Channel {
        let new = NewChannel {
            id: new_id(),
            tenant: self.tenant.clone(),
            kind: kind.to_owned(),
            url: url.to_owned(),
            secret: SecretString::from(SECRET),
        };
        self.store.create_channel(new).await.unwrap()
    }

    /// A delivery for `channel`, due now.
    pub(crate) async fn deliver(&self, channel: &Channel) -> Uuid {
        let new = NewDelivery::new(self.tenant.clone(), channel.id, serde_json::json!({"n": 1}));
        self.store.create_delivery(new).await.unwrap().id
    }

    /// A delivery as it stands now.
    pub(crate) async fn delivery(&self, id: Uuid) -> Delivery {
        self.store.get_delivery(&self.tenant, id).await.unwrap().unwrap()
    }
}

/// Waits until `probe` holds, for at most ten seconds of real time.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, probe: impl Fn() -> F) {
    let patience = Instant::now() + Duration::from_secs(10);
    while !probe().await {
        assert!(Instant::now() < patience, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
