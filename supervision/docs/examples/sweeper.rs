/// Sweeps every second, and promises to.
fn sweeper(id: &str) -> ChildSpec {
    ChildSpec::task(id, |context| async move {
        let heartbeat = context.heartbeat("sweep", Duration::from_secs(1));
        let stop = context.cancelled();
        loop {
            // One round of useful work, and then:
            heartbeat.beat();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    })
}
