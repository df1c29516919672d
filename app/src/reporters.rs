//! Who is told of incidents beside the log. To tell somebody else, implement [`ErrorReporter`] and add it to the list.

use secrecy::SecretString;
use telemetry::reporters::{self, ErrorReporter, Failed};

use crate::settings::Settings;

/// From here on incidents are told.
///
/// # Errors
/// One of the reporters cannot be made, or has no thread; then nobody is told.
pub fn start(settings: &Settings) -> Result<(), Failed> {
    let all: Vec<Box<dyn ErrorReporter>> = sentry(settings)?.into_iter().collect();
    Ok(reporters::set(all)?)
}

/// Where the DSN of a project leads.
///
/// # Errors
/// It is none, or this build has nobody who could go there.
#[cfg(feature = "sentry")]
pub fn address_of(dsn: &SecretString) -> Result<String, String> {
    use secrecy::ExposeSecret;
    sentry_reporter::address_of(dsn.expose_secret()).map_err(|reason| format!("must be the DSN of a project: {reason}"))
}

/// Where the DSN of a project leads.
///
/// # Errors
/// This build has nobody who could go there.
#[cfg(not(feature = "sentry"))]
pub fn address_of(_: &SecretString) -> Result<String, String> {
    Err("must be empty, for this build cannot tell Sentry: make one with the feature, cargo build --features app/sentry"
        .to_owned())
}

#[cfg(feature = "sentry")]
fn sentry(settings: &Settings) -> Result<Option<Box<dyn ErrorReporter>>, Failed> {
    use secrecy::ExposeSecret;
    use sentry_reporter::{SentryReporter, SentrySettings};

    use crate::banner::NAME;

    let section = &settings.telemetry.sentry;
    let Some(dsn) = &section.dsn else { return Ok(None) };
    let environment = if section.environment.is_empty() { settings.profile.name() } else { &section.environment };
    let reporter = SentryReporter::new(SentrySettings {
        dsn: dsn.expose_secret(),
        release: format!("{NAME}@{}", env!("CARGO_PKG_VERSION")),
        environment: environment.to_owned(),
    })?;
    Ok(Some(Box::new(reporter)))
}

#[cfg(not(feature = "sentry"))]
fn sentry(_: &Settings) -> Result<Option<Box<dyn ErrorReporter>>, Failed> {
    Ok(None)
}
