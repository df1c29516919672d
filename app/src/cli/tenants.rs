//! `app tenant ...`: what an operator does with tenants where the store is, whether a service runs over it or not. One that
//! does takes note within seconds. Limits are set over `/admin/tenants`.
//!
//! Each command but `list` leaves a record, see [`crate::audit`], where the service's own log goes.

use std::fmt::Write;

use actors::model::TenantId;
use actors::store::{KeyHash, SharedStore, StoreError, Tenant, new_key};
use clap::Subcommand;
use secrecy::ExposeSecret;
use tracing::Instrument;
use uuid::Uuid;

use super::No;
use crate::banner::NAME;
use crate::http::admin::tenants::TenantResource;
use crate::parts::store_of;
use crate::settings::{FLUSH, Settings};
use crate::{audit, exit};

/// Tenants that are read at once.
const PAGE: u32 = 1_000;

/// What to do with tenants.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TenantAction {
    /// Make a tenant and its key, which is shown this once
    Create {
        /// 1 to 64 of a-z, 0-9, _ and -
        name: TenantId,
    },
    /// Show all tenants
    List {
        /// As one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Give a tenant a new key, which is shown this once; the one before opens nothing any more
    RotateKey {
        /// Its name
        name: TenantId,
    },
    /// Let a tenant do nothing: requests are refused, sockets closed, jobs and deliveries wait, schedules do not fire
    Disable {
        /// Its name
        name: TenantId,
    },
    /// Let a disabled tenant go on
    Enable {
        /// Its name
        name: TenantId,
    },
}

impl TenantAction {
    /// The name of the action for the audit, and whom it is about. A mere look has none.
    fn audited(&self) -> Option<(&'static str, &TenantId)> {
        match self {
            Self::List { .. } => None,
            Self::Create { name } => Some(("tenant.create", name)),
            Self::RotateKey { name } => Some(("tenant.rotate_key", name)),
            Self::Disable { name } => Some(("tenant.disable", name)),
            Self::Enable { name } => Some(("tenant.enable", name)),
        }
    }
}

telemetry::declare_spans! {
    /// A command of the command line that changes something.
    struct CommandSpan<'a> = ("tenant.{create|rotate_key|disable|enable}" as "command", internal, child) {
        #[name = "otel.name"]
        name: &'a str,
        tenant: &'a str,
    }
}

/// Carries it out, and answers with what is to be shown.
pub(super) async fn carry_out(settings: &Settings, action: &TenantAction) -> Result<String, No> {
    let Some((name, subject)) = action.audited() else {
        return ask(settings, action).await;
    };
    let telemetry = telemetry::export::start(settings.for_telemetry(NAME, Uuid::new_v4()));
    let telemetry = telemetry.map_err(|error| No::new(exit::CONFIGURATION, error))?;
    let answer = async {
        let answer = ask(settings, action).await;
        let outcome = match &answer {
            Ok(_) => "done",
            Err(no) if no.code == exit::NO => "refused",
            Err(_) => "failed",
        };
        audit::command(name, subject.as_str(), outcome);
        answer
    };
    let answer = answer.instrument(CommandSpan { name, tenant: subject.as_str() }.open()).await;
    telemetry.flush_and_stop(FLUSH).await;
    answer
}

async fn ask(settings: &Settings, action: &TenantAction) -> Result<String, No> {
    let store = store_of(settings).map_err(no)?;
    store.prepare().await.map_err(no)?;
    let answer = match action {
        TenantAction::Create { name } => create(&store, name).await.map_err(no),
        TenantAction::List { json } => {
            let format = if *json { as_json } else { as_table };
            list(&store).await.map(|tenants| format(settings, &tenants)).map_err(no)
        }
        TenantAction::RotateKey { name } => rotate_key(&store, name).await.map_err(no),
        TenantAction::Disable { name } => {
            store.disable_tenant(name).await.map(|_| format!("tenant {name} is disabled")).map_err(no)
        }
        TenantAction::Enable { name } => {
            store.enable_tenant(name).await.map(|_| format!("tenant {name} is enabled")).map_err(no)
        }
    };
    store.close().await;
    answer
}

fn no(error: StoreError) -> No {
    match error {
        StoreError::Conflict { what, .. } | StoreError::NotFound { what, .. } => No::new(exit::NO, what),
        other => No::new(exit::UNAVAILABLE, other),
    }
}

async fn create(store: &SharedStore, name: &TenantId) -> Result<String, StoreError> {
    let key = new_key();
    store.create_tenant(name, &KeyHash::of(key.expose_secret())).await?;
    Ok(shown_once(name, key.expose_secret()))
}

async fn rotate_key(store: &SharedStore, name: &TenantId) -> Result<String, StoreError> {
    let key = new_key();
    store.rotate_tenant_key(name, &KeyHash::of(key.expose_secret())).await?;
    Ok(shown_once(name, key.expose_secret()))
}

/// Only the key's hash is kept, so this is the one time to see it.
fn shown_once(name: &TenantId, key: &str) -> String {
    format!("tenant {name}, key {key}\nkeep it: only its hash is stored")
}

async fn list(store: &SharedStore) -> Result<Vec<Tenant>, StoreError> {
    let mut all: Vec<Tenant> = Vec::new();
    loop {
        let page = store.list_tenants(all.last().map(|last| &last.id), PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn as_json(settings: &Settings, tenants: &[Tenant]) -> String {
    let tenants: Vec<_> = tenants.iter().map(|tenant| TenantResource::new(tenant, settings.for_tenants())).collect();
    // Text and numbers can always be written.
    serde_json::to_string_pretty(&tenants).unwrap_or_default()
}

/// One line for each; its own limits by name, those that are the default left out.
fn as_table(_: &Settings, tenants: &[Tenant]) -> String {
    let width = tenants.iter().map(|tenant| tenant.id.as_str().len()).max().unwrap_or(0).max("tenant".len());
    let mut table = format!("{:width$}  {:24}  {:24}  own limits", "tenant", "created", "disabled");
    for tenant in tenants {
        let time = crate::http::resource::time;
        let disabled = tenant.disabled_at_ms.map_or_else(|| "-".to_owned(), time);
        let created = time(tenant.created_at_ms);
        // Writing to a string does not fail.
        let _ = write!(table, "\n{:width$}  {created:24}  {disabled:24}  {}", tenant.id.as_str(), own_limits(tenant));
    }
    table
}

fn own_limits(tenant: &Tenant) -> String {
    let quotas = &tenant.quotas;
    let all = [
        ("requests_per_s", quotas.requests_per_s),
        ("requests_burst", quotas.requests_burst),
        ("requests_at_once", quotas.requests_at_once),
        ("sockets", quotas.sockets),
        ("subscriptions", quotas.subscriptions),
        ("job_weight", quotas.job_weight),
        ("jobs_running", quotas.jobs_running),
        ("jobs_queued", quotas.jobs_queued),
        ("job_starts_per_s", quotas.job_starts_per_s),
    ];
    let own: Vec<_> = all.iter().filter_map(|(name, own)| own.map(|own| format!("{name}={own}"))).collect();
    if own.is_empty() { "-".to_owned() } else { own.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    /// Over an empty store in `directory`.
    fn settings(directory: &tempfile::TempDir) -> Settings {
        let url = format!("sqlite://{}/store.db", directory.path().display());
        let environment = vec![("APP__STORE__URL".into(), url.into())];
        load(&Sources { environment, ..Sources::default() }).unwrap().settings
    }

    fn name(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// Whose key was shown.
    async fn owner(settings: &Settings, shown: &str) -> Option<TenantId> {
        let key = shown.lines().next().unwrap().strip_prefix("tenant acme, key ").unwrap();
        let store = store_of(settings).unwrap();
        store.prepare().await.unwrap();
        store.tenant_by_key_hash(&KeyHash::of(key)).await.unwrap().map(|tenant| tenant.id)
    }

    #[tokio::test]
    async fn a_tenant_is_made_once_and_only_its_last_key_opens_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        let create = TenantAction::Create { name: name("acme") };
        let shown = ask(&settings, &create).await.unwrap();
        assert_eq!(owner(&settings, &shown).await, Some(name("acme")));
        let again = ask(&settings, &create).await.unwrap_err();
        assert_eq!((again.code, again.reason.as_str()), (exit::NO, "there is a tenant acme already"));

        let rotated = ask(&settings, &TenantAction::RotateKey { name: name("acme") }).await.unwrap();
        assert_eq!(owner(&settings, &rotated).await, Some(name("acme")));
        assert_eq!(owner(&settings, &shown).await, None);
        let nobody = ask(&settings, &TenantAction::RotateKey { name: name("nobody") }).await.unwrap_err();
        assert_eq!((nobody.code, nobody.reason.as_str()), (exit::NO, "there is no tenant nobody"));
    }

    #[tokio::test]
    async fn tenants_are_listed_as_a_table_and_as_json() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(&directory);
        for each in ["acme", "a-tenant-with-a-long-name"] {
            ask(&settings, &TenantAction::Create { name: name(each) }).await.unwrap();
        }
        ask(&settings, &TenantAction::Disable { name: name("acme") }).await.unwrap();
        let table = ask(&settings, &TenantAction::List { json: false }).await.unwrap();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["tenant", "created", "disabled", "own", "limits"]);
        assert_eq!((lines[1][0], lines[1][2], lines[1][3]), ("a-tenant-with-a-long-name", "-", "-"));
        assert!(lines[2][0] == "acme" && lines[2][2].ends_with('Z'), "{table}");
        let json = ask(&settings, &TenantAction::List { json: true }).await.unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json[1]["id"], json[1]["disabled_at"].is_string()), (&"acme".into(), true));
        assert_eq!(json[0]["in_force"]["requests_per_s"], 1000);
        ask(&settings, &TenantAction::Enable { name: name("acme") }).await.unwrap();
        let table = ask(&settings, &TenantAction::List { json: false }).await.unwrap();
        assert!(table.lines().skip(1).all(|line| line.split_whitespace().nth(2) == Some("-")), "{table}");
    }
}
