//! The kinds of jobs that this service runs. A fork adds its own here; how to write one is told in `docs/jobs.md`.

mod check_links;

use std::sync::Arc;

use actors::bus::Bus;
use actors::jobs::{Handlers, Notify, Panic, Publish, Sleep};
use actors::outbound::{BuildError, Outbound, TargetRules};

use self::check_links::CheckLinks;
use crate::settings::Settings;

/// A handler for each kind; `outbound` is for those that call others.
///
/// # Errors
/// [`BuildError`] when the HTTP client for one's own machine cannot be set up.
pub fn handlers(settings: &Settings, bus: &Arc<dyn Bus>, outbound: &Outbound) -> Result<Handlers, BuildError> {
    let handlers = Handlers::new().with(Publish::new(bus.clone())).with(Notify);
    if !settings.is_development() {
        return Ok(handlers);
    }
    let own_network = outbound.with(|settings| settings.rules = TargetRules::own_network())?;
    Ok(handlers.with(Panic).with(Sleep).with(CheckLinks::new(own_network)))
}
