//! The two actors of the subsystem, each alone, through the battery.

use supervision::battery::{self, Subject};

use super::super::courier::{Courier, Word};
use super::*;

async fn shared() -> (Arc<Shared>, Kept) {
    let kept = Kept::open().await;
    let adapters = Adapters::standard(&outbound(&settings()), &settings().bases());
    // So long that every wait is cut by the end of the actor.
    let settings = Settings { interval_ms: 60_000, idle_after_ms: 60_000, ..settings() };
    let manager = ChannelManager::with_adapters(settings, Arc::clone(&kept.store), Poke::new(), adapters).unwrap();
    (manager.0, kept)
}

#[tokio::test]
async fn the_dispatcher_passes_the_battery() {
    install_tls();
    let (shared, _kept) = shared().await;
    let report = battery::run(|| dispatcher(Arc::clone(&shared))).await;
    assert_eq!(report.skipped().count(), 2, "all but the flood and what is for tasks: {report}");
}

#[tokio::test]
async fn a_courier_passes_the_battery() {
    install_tls();
    let (shared, kept) = shared().await;
    let channel = Arc::new(kept.channel(webhook::KIND, "http://127.0.0.1:9/hook").await);
    let report = battery::run(|| {
        let address = Address::new("courier");
        let (shared, channel) = (Arc::clone(&shared), Arc::clone(&channel));
        let child = ChildSpec::actor("courier", &address, move |context| {
            (Courier, (context, Arc::clone(&shared), Arc::clone(&channel)))
        });
        Subject::new(child).message(&address, || Word::Wake)
    })
    .await;
    assert_eq!(report.skipped().count(), 1, "all but what is for tasks: {report}");
}
