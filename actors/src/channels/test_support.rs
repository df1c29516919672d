//! What the tests of channels share, beside the receiver of [`crate::outbound`]'s tests.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;
use uuid::Uuid;

use super::Destination;
use crate::model::{Clock, TenantId, new_id};
pub(crate) use crate::outbound::testing::{Received, Receiver, install_tls, outbound_settings};
use crate::store::{Channel, Delivery, KeyHash, NewChannel, NewDelivery, SharedStore, SqliteOptions, SqliteStore};

/// A secret both sides know.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A destination at `url` that signs with [`SECRET`].
pub(crate) fn destination(url: &str) -> Destination {
    Destination { url: url.to_owned(), secret: SecretString::from(SECRET), chat: None }
}

/// A URL without a path at which nobody listens.
pub(crate) async fn closed_base() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
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
            chat: None,
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
