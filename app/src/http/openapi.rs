//! The document of the API: OpenAPI 3.1, made of the routes themselves, so the two cannot part.
//!
//! A handler says with `#[utoipa::path]` what it takes, what it answers when all is well, and what only it refuses, as
//! `(status = 409, description = "...")`; that such an answer is a problem document is known. What the layers around it
//! and the extractors before it refuse is the same for every route and said here once, by what an operation takes:
//! [`complete`].

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::idempotency::{IDEMPOTENCY_KEY, KEY_MAX, REPLAYED};
use super::problem::Document;
use crate::banner;

/// The name of the security scheme in the document.
const KEY: &str = "key";

/// What holds for every route.
const ABOUT: &str = "Every error is a problem document by RFC 9457 that names the field and the reason.

Every request may bring `traceparent`, `X-Request-ID` (made if it is absent, returned in any case), and \
`X-Request-Timeout-Ms`: how long its caller waits, a whole number of milliseconds from 1. What is not done by then is \
answered 408.

Where a key is needed, `RateLimit` says what the tenant has left, and `RateLimit-Policy` of how much.";

/// The document before any route is in it: what the product is, how a tenant shows its key, how errors look.
pub fn frame() -> OpenApi {
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The key of a tenant."));
    let mut schemas = vec![(Document::name().into_owned(), Document::schema())];
    Document::schemas(&mut schemas);
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(KEY, SecurityScheme::Http(key.build()))
        .build();
    let info = InfoBuilder::new().title(banner::NAME).version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some(ABOUT));
    OpenApiBuilder::new().info(info.build()).components(Some(components)).build()
}

/// Adds to each operation what stands around it: the key, and the refusals of the layers and of the extractors.
/// What a handler has said itself stays as it is.
pub fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        if let Some(operation) = &mut item.post {
            give_key(operation);
        }
        for operation in operations(item) {
            operation.security.get_or_insert_with(|| vec![SecurityRequirement::new::<_, [&str; 0], &str>(KEY, [])]);
            for (status, description) in refusals(operation) {
                refuse(operation, status, description);
            }
        }
    }
}

/// Tags every operation after the resource (`/v1/jobs/{id}`: `jobs`), makes the names of handlers unique (`jobs_get`), and
/// gives errors their shape.
pub fn finish(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let resource = path.strip_prefix("/v1").unwrap_or(path).split('/').nth(1).unwrap_or_default().to_owned();
        for operation in operations(item) {
            let tag = operation.tags.get_or_insert_with(|| vec![resource.clone()]).concat();
            let handler = operation.operation_id.take().unwrap_or_default();
            operation.operation_id = Some(format!("{tag}_{handler}"));
            give_problems(operation);
        }
    }
}

/// All operations of a path.
fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    [get, put, post, delete, options, head, patch, trace].into_iter().flatten()
}

/// Every POST takes a key, and says so when it has answered before.
fn give_key(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(KEY_MAX));
    let key = ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY.as_str())
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "Visible ASCII. The same request with the same key is not done twice, but answered the same.",
        ))
        .schema(Some(text.pattern(Some("^[!-~]+$"))));
    operation.parameters.get_or_insert_default().push(key.build());
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with('2')
        {
            let replayed = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true"]));
            let header = HeaderBuilder::new().schema(replayed).description(Some("Whether it was given before"));
            response.headers.insert(REPLAYED.as_str().to_owned(), header.build());
        }
    }
    refuse(operation, 400, "The key is malformed, or the body is not JSON");
    refuse(operation, 409, "The key belongs to a request that is still being worked on");
    refuse(operation, 413, "The body is too long");
    refuse(operation, 422, "The key belongs to another request, or fields are missing, unknown or out of bounds");
}

/// What is refused before the handler has its say, by what the operation takes.
fn refusals(operation: &Operation) -> Vec<(u16, &'static str)> {
    let mut refusals = vec![
        (400, "A header or the body cannot be read"),
        (401, "There is no key, or it is nobody's"),
        (403, "The tenant is disabled"),
        (408, "The request was not complete and answered in time"),
        (429, "The tenant has reached a limit, or too many wrong keys came from the address"),
        (500, "A fault of ours; the detail names the incident"),
        (503, "The service is full, stopping, or without its store; come again"),
    ];
    if operation.request_body.is_some() {
        refusals.extend([
            (413, "The body is too long"),
            (415, "The body is not said to be JSON"),
            (422, "Fields of the body are missing, unknown or out of bounds"),
        ]);
    }
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    if parameters.iter().any(|parameter| parameter.parameter_in == ParameterIn::Path) {
        refusals.push((404, "There is no such thing, or it is another tenant's"));
    }
    if parameters.iter().any(|parameter| parameter.parameter_in == ParameterIn::Query) {
        refusals.push((422, "Parameters are unknown or out of bounds"));
    }
    refusals
}

/// Says that `status` may be answered, unless the handler has said so itself.
fn refuse(operation: &mut Operation, status: u16, description: &str) {
    let mut response = Response::new(description);
    let header = match status {
        401 => Some(("www-authenticate", Type::String, "The way in")),
        409 | 429 | 503 => Some(("retry-after", Type::Integer, "When to come again, in seconds")),
        _ => None,
    };
    if let Some((name, kind, meaning)) = header {
        let header = HeaderBuilder::new().schema(ObjectBuilder::new().schema_type(kind));
        response.headers.insert(name.to_owned(), header.description(Some(meaning)).build());
    }
    operation.responses.responses.entry(status.to_string()).or_insert(RefOr::T(response));
}

/// Every error without a body of its own is a problem document.
fn give_problems(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.content.is_empty() && status.starts_with(['4', '5']) {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Document::name()))).build();
            response.content.insert("application/problem+json".to_owned(), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa_axum::{router::OpenApiRouter, routes};

    use super::*;
    use crate::http::resource::Id;

    /// Makes one.
    #[utoipa::path(post, path = "/v1/things", request_body = String, responses((status = 201), (status = 422, description = "Ours")))]
    async fn create() {}

    #[utoipa::path(get, path = "/v1/things/{id}", params(Id), responses((status = 200)))]
    async fn get() {}

    /// Takes no body.
    #[utoipa::path(post, path = "/v1/things/{id}/poke", params(Id), responses((status = 200)))]
    async fn poke() {}

    fn document() -> Value {
        let router = OpenApiRouter::<()>::with_openapi(frame()).routes(routes!(create)).routes(routes!(get));
        let router = router.routes(routes!(poke));
        let mut document = router.into_openapi();
        complete(&mut document);
        finish(&mut document);
        serde_json::to_value(document).unwrap()
    }

    fn statuses(operation: &Value) -> Vec<&str> {
        operation["responses"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn each_operation_says_what_is_refused_before_its_handler_is_asked() {
        let paths = &document()["paths"];
        let (create, get) = (&paths["/v1/things"]["post"], &paths["/v1/things/{id}"]["get"]);
        let all = ["201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "500", "503"];
        assert_eq!(statuses(create), all);
        assert_eq!(statuses(get), ["200", "400", "401", "403", "404", "408", "429", "500", "503"]);
        let poke = statuses(&paths["/v1/things/{id}/poke"]["post"]);
        let without_body = ["200", "400", "401", "403", "404", "408", "409", "413", "422", "429", "500", "503"];
        assert_eq!(poke, without_body, "with a key any body is read");
        assert_eq!(create["responses"]["422"]["description"], "Ours");
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        assert_eq!(get["responses"]["404"]["content"]["application/problem+json"]["schema"], schema);
        assert_eq!((&create["security"], &create["summary"]), (&json!([{"key": []}]), &json!("Makes one.")));
    }

    #[test]
    fn operations_are_named_after_resource_and_handler() {
        let paths = &document()["paths"];
        assert_eq!(paths["/v1/things"]["post"]["operationId"], "things_create");
        assert_eq!(paths["/v1/things/{id}"]["get"]["operationId"], "things_get");
        assert_eq!(paths["/v1/things"]["post"]["tags"], json!(["things"]));
    }
}
