//! `/v1/socket`: the door to the broadcaster. What is refused is refused here, as plain HTTP; what comes after the
//! upgrade is the business of `socket.rs`.

use std::time::Duration;

use actors::broadcast::{Refused, Subscriber, Topic};
use actors::store::KeyHash;
use axum::Extension;
use axum::extract::{FromRequestParts, RawQuery, State, WebSocketUpgrade};
use axum::response::Response;
use http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use supervision::Errand;

use super::allowance::SocketQuota;
use super::page::Query;
use super::problem::{FieldError, Problem};
use super::resource::Caller;
use super::socket;
use super::{ApiState, auth};

/// A request that can become a socket, or a problem that says what is missing.
pub struct Upgrade(WebSocketUpgrade);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        upgrade.map(Self).map_err(|refused| {
            let problem = Problem::new(refused.status(), refused.body_text());
            match refused.status() {
                // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
                StatusCode::UPGRADE_REQUIRED => problem
                    .with_header(UPGRADE, HeaderValue::from_static("websocket"))
                    .with_header(CONNECTION, HeaderValue::from_static("upgrade")),
                _ => problem.with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            }
        })
    }
}

/// Upgrades to a WebSocket that hears the topics: `?topic=a&topic=b`.
///
/// # Errors
/// 422 for a topic that is none or one too many, 429 at the tenant's limit, 503 while draining or full; 426 or 400 if it is no upgrade.
#[utoipa::path(get, path = "/v1/socket",
    params(("topic" = Option<Vec<String>>, Query, description = "What to listen to; as often as there are topics", explode)),
    responses((status = 101, description = "A WebSocket"),
        (status = 400, description = "No upgrade to a WebSocket"),
        (status = 426, description = "The connection cannot be upgraded")))]
pub async fn open(
    State(state): State<ApiState>,
    Caller(tenant): Caller,
    SocketQuota(limits): SocketQuota,
    Extension(key): Extension<KeyHash>,
    RawQuery(query): RawQuery,
    Upgrade(upgrade): Upgrade,
) -> Result<Response, Problem> {
    let topics = topics(query.as_deref().unwrap_or_default())?;
    let subscriber = state.hub.connect(tenant, &topics, limits).map_err(refused)?;
    // If the key was revoked since, whoever closed the sockets of its tenant did not find this one.
    auth::confirm(&state.tenants, &key).await?;
    let tasks = state.sockets.clone();
    // The upgraded connection is nobody's until its task is in the group.
    let upgrade = socket::tune(upgrade);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let cancel = tasks.token();
        tasks.spawn_errand("socket", errand(&subscriber), socket::serve(socket, subscriber, cancel));
    }))
}

/// Whose socket or stream it is, for the record of a panic.
pub(super) fn errand(subscriber: &Subscriber) -> Errand {
    let tenant = Some(subscriber.tenant().to_string());
    Errand { tenant, if_it_panics: Some("the connection was closed, all else goes on"), ..Errand::default() }
}

fn topics(query: &str) -> Result<Vec<Topic>, Problem> {
    let mut query = Query::parse(query);
    let topics = query.all("topic", str::parse::<Topic>);
    query.finish().map(|()| topics)
}

/// A tenant whose connections are all open comes again after this long: they last, so sooner is of little use.
const ALL_OPEN_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Why a subscriber was not taken, also of a stream.
pub(super) fn refused(refused: Refused) -> Problem {
    if let Some(after) = refused.retry_after() {
        return Problem::unavailable(refused.to_string(), u32::try_from(after.as_secs()).unwrap_or(1).max(1));
    }
    match refused {
        // The same request is refused whenever it comes again.
        Refused::SocketTopics { limit } => Problem::invalid(vec![FieldError {
            field: "topic".to_owned(),
            reason: format!("may be given {limit} times"),
        }]),
        other => Problem::too_many(other.to_string(), ALL_OPEN_RETRY_AFTER),
    }
}

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upgrade")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_the_query_as_often_as_they_are_named() {
        let read = topics("topic=a&topic=b%2Fc").unwrap();
        assert_eq!(read.iter().map(Topic::as_str).collect::<Vec<_>>(), ["a", "b/c"]);
        assert!(topics("").unwrap().is_empty());
    }

    #[test]
    fn a_bad_topic_and_an_unknown_parameter_are_both_told() {
        let problem = topics("topic=a%20b&topics=c").unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.detail()), (422, "2 fields are not valid"));
    }

    async fn refusal(headers: &[(&str, &str)]) -> Response {
        let request =
            headers.iter().fold(http::Request::get("/"), |request, (name, value)| request.header(*name, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Upgrade::from_request_parts(&mut parts, &()).await.unwrap_err().write("r")
    }

    #[tokio::test]
    async fn who_is_refused_for_the_protocol_is_told_which_one_is_spoken() {
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "a")];
        let refused = refusal(&[&upgrade[..], &[("sec-websocket-version", "13")]].concat()).await;
        assert_eq!((refused.status().as_u16(), refused.headers()["upgrade"].to_str().unwrap()), (426, "websocket"));
        assert_eq!(refused.headers()["connection"], "upgrade");
        let refused = refusal(&[&upgrade[..], &[("sec-websocket-version", "8")]].concat()).await;
        let spoken = refused.headers()["sec-websocket-version"].to_str().unwrap();
        assert_eq!((refused.status().as_u16(), spoken), (400, "13"));
    }

    #[test]
    fn a_limit_of_the_tenant_is_429_and_a_full_house_503() {
        assert_eq!(refused(Refused::TenantSockets { limit: 1 }).status(), 429);
        assert_eq!(refused(Refused::Full { retry_after: Duration::from_millis(1_500) }).status(), 503);
    }
}
