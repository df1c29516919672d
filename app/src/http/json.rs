//! Bodies in, checked to the last field; bodies out.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use tokio::time::timeout;

use super::problem::{FieldError, Problem};

/// A JSON body of a known shape, from a request or for an answer.
///
/// A request is refused with 415 without a JSON content type or with a content coding, 413 above the limit, 400 if it is not JSON (with line and
/// column), 422 if it is no object or has another shape (with the field's path). The shapes refuse unknown fields.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// What a body may take; the state of a router says it.
pub trait BodyLimit {
    /// The longest body in bytes.
    fn body_bytes_max(&self) -> usize;
    /// How long it may take to come. Where a request as a whole has less time, that is over before.
    fn body_within(&self) -> Duration;
}

impl<T: DeserializeOwned, S: BodyLimit + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "the body must be JSON, with the header content-type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        if is_coded(request.headers()) {
            let detail = "the body must not be compressed: no header content-encoding but identity";
            let header = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with_header(header.0, header.1));
        }
        let body = read(request.into_body(), state).await?;
        parse(&body).map(Json)
    }
}

/// For a request that may go without a body: then it may go without a content type too. It is read to know, for neither
/// chunks nor HTTP/2 say in advance that nothing comes.
impl<T: DeserializeOwned, S: BodyLimit + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let (head, body) = request.into_parts();
        let body = read(body, state).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let request = Request::from_parts(head, Body::from(body));
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// `application/json`, or what ends in `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What nobody decodes must not be read as if it were plain (RFC 9110, section 8.4).
fn is_coded(headers: &HeaderMap) -> bool {
    let identity = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|coding| !identity(coding))
}

/// The whole body of a request.
pub(super) async fn read(body: Body, state: &impl BodyLimit) -> Result<bytes::Bytes, Problem> {
    let (limit, within) = (state.body_bytes_max(), state.body_within());
    let announced = body.size_hint().lower();
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {limit} bytes at most"));
    // Said in advance to be too large: not one byte of it is read.
    if announced > limit as u64 {
        return Err(too_large());
    }
    let read = timeout(within, Limited::new(body, limit).collect()).await.map_err(|_| {
        let detail = format!("the body was not complete within {} ms", within.as_millis());
        Problem::new(StatusCode::REQUEST_TIMEOUT, detail)
    })?;
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the body ended before its announced length, or its chunks cannot be read",
        )),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    must_be_object(body)?;
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        refused(error.into_inner(), if field == "." { String::new() } else { field })
    })?;
    json.end().map_err(|error| refused(error, String::new()))?;
    Ok(value)
}

/// A struct of serde would also read an array, by the order of its fields; nobody means that.
fn must_be_object(body: &[u8]) -> Result<(), Problem> {
    if body.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| refused(error, String::new()))?;
    Err(unfit("must be an object", FieldError { field: String::new(), reason: "must be an object".to_owned() }))
}

fn refused(error: serde_json::Error, field: String) -> Problem {
    match error.classify() {
        Category::Data => {
            let error = error.to_string();
            let (reason, place) = in_plain_words(&error);
            unfit(&format!("{reason}{place}"), FieldError { field, reason })
        }
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
        }
    }
}

fn unfit(what: &str, error: FieldError) -> Problem {
    let detail = format!("the body is JSON, but not what is expected here: {what}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_errors(vec![error])
}

/// What is wrong, without the names of our types, and the place (` at line 1 column 21`).
fn in_plain_words(error: &str) -> (String, &str) {
    let (reason, place) = error.rfind(" at line ").map_or((error, ""), |at| error.split_at(at));
    let Some((found, expected)) = reason.rsplit_once(", expected ") else {
        return (reason.to_owned(), place);
    };
    let is_out_of_range = found.starts_with("invalid value: integer");
    let plain = match expected {
        "i32" if is_out_of_range => "an integer from -2147483648 to 2147483647",
        "u32" if is_out_of_range => "an integer from 0 to 4294967295",
        "i8" | "i16" | "i32" | "i64" => "an integer",
        "u8" | "u16" | "u32" | "u64" | "usize" => "an integer, not negative",
        "f32" | "f64" => "a number",
        name if name.starts_with("struct ") => "an object",
        name if name.starts_with("enum ") => "one of the words that are allowed here",
        same => same,
    };
    (format!("{found}, expected {plain}"), place)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderValue;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    struct Limit(usize);

    impl BodyLimit for Limit {
        fn body_bytes_max(&self) -> usize {
            self.0
        }

        fn body_within(&self) -> Duration {
            Duration::from_secs(10)
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        outer: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        n: u32,
    }

    async fn ask(content_type: &'static str, body: impl Into<Body>, limit: usize) -> Result<u32, Problem> {
        let mut request = Request::new(body.into());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        <Json<Shape> as FromRequest<_>>::from_request(request, &Limit(limit)).await.map(|Json(shape)| shape.outer.n)
    }

    async fn refusal(body: &'static str) -> (u16, String, Value) {
        let problem = ask("application/json", body, 100).await.unwrap_err();
        let response = problem.write("r");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let document: Value = serde_json::from_slice(&body).unwrap();
        (problem.status().as_u16(), problem.detail().to_owned(), document["errors"].clone())
    }

    #[tokio::test]
    async fn a_good_body_is_read_whatever_its_json_media_type() {
        for media in ["application/json", "application/json; charset=utf-8", "Application/Merge-Patch+JSON"] {
            assert_eq!(ask(media, r#"{"outer":{"n":7}}"#, 100).await.unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn another_media_type_is_415() {
        for media in ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"] {
            assert_eq!(ask(media, r#"{"outer":{"n":7}}"#, 100).await.unwrap_err().status(), 415);
        }
    }

    #[tokio::test]
    async fn bad_json_is_400_with_line_and_column() {
        let (status, detail, _) = refusal("{\"outer\":\n  {\"n\": }}").await;
        assert_eq!((status, detail.as_str()), (400, "the body is not JSON: expected value at line 2 column 9"));
        assert_eq!(refusal("").await.0, 400);
        assert_eq!(refusal(r#"{"outer":{"n":7}} {}"#).await.0, 400);
    }

    #[tokio::test]
    async fn a_wrong_type_is_422_with_the_path_of_the_field() {
        let (status, detail, errors) = refusal(r#"{"outer":{"n":"seven"}}"#).await;
        assert_eq!(status, 422);
        assert!(
            detail.ends_with("invalid type: string \"seven\", expected an integer, not negative at line 1 column 21"),
            "{detail}"
        );
        let reason = "invalid type: string \"seven\", expected an integer, not negative";
        assert_eq!(errors, json!([{"field": "outer.n", "reason": reason}]));
    }

    #[tokio::test]
    async fn a_number_that_does_not_fit_is_422_with_what_does() {
        for (number, found) in
            [("-1", "invalid value: integer `-1`"), ("4294967296", "invalid value: integer `4294967296`")]
        {
            let problem = parse::<Shape>(format!(r#"{{"outer":{{"n":{number}}}}}"#).as_bytes()).unwrap_err();
            let said = format!("{found}, expected an integer from 0 to 4294967295");
            assert!(problem.status() == 422 && problem.detail().contains(&said), "{}", problem.detail());
        }
        for number in ["1e30", "1000000000000000000000000000000", "1.5"] {
            let problem = parse::<Shape>(format!(r#"{{"outer":{{"n":{number}}}}}"#).as_bytes()).unwrap_err();
            assert!(problem.detail().contains("expected an integer, not negative"), "{}", problem.detail());
        }
        assert_eq!(parse::<Shape>(br#"{"outer":{"n":1e400}}"#).unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn a_compressed_body_is_415_and_not_read_as_if_it_were_plain() {
        for (coding, status) in [("gzip", Some(415)), ("identity", None), ("identity, gzip", Some(415))] {
            let mut request = Request::new(Body::from(r#"{"outer":{"n":7}}"#));
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            let refused = <Json<Shape> as FromRequest<_>>::from_request(request, &Limit(100)).await.err();
            assert_eq!(refused.map(|problem| problem.status().as_u16()), status, "{coding}");
        }
    }

    #[tokio::test]
    async fn unknown_and_missing_fields_are_422_and_named() {
        let (_, _, errors) = refusal(r#"{"outer":{"n":1,"m":2}}"#).await;
        assert_eq!(errors[0]["field"], "outer.m");
        assert_eq!(errors[0]["reason"], "unknown field `m`, expected `n`");
        let (status, _, errors) = refusal(r#"{"outer":{}}"#).await;
        assert_eq!((status, &errors[0]["reason"]), (422, &json!("missing field `n`")));
    }

    #[tokio::test]
    async fn what_is_no_object_is_422_and_says_so() {
        let errors = json!([{"field": "", "reason": "must be an object"}]);
        for body in ["[{\"n\":7}]", "[]", " \n7", "null", "\"outer\""] {
            let (status, detail, said) = refusal(body).await;
            assert_eq!((status, &said), (422, &errors), "{body}");
            assert!(detail.ends_with(": must be an object"), "{detail}");
        }
        assert_eq!(refusal("[7").await.0, 400);
        let (status, _, said) = refusal(r#"{"outer":7}"#).await;
        let reason = "invalid type: integer `7`, expected an object";
        assert_eq!((status, said), (422, json!([{"field": "outer", "reason": reason}])));
    }

    #[test]
    fn a_body_that_nests_without_end_is_400_and_no_overflow() {
        assert_eq!(parse::<Value>("[".repeat(100_000).as_bytes()).unwrap_err().status(), 400);
        let refused = parse::<Value>(r#"{"a":"#.repeat(100_000).as_bytes()).unwrap_err();
        assert_eq!(refused.status(), 400);
        assert!(refused.detail().contains("recursion limit exceeded"), "{}", refused.detail());
    }

    #[tokio::test]
    async fn a_body_that_may_be_absent_may_also_be_empty_however_its_end_is_told() {
        let in_chunks = |chunks: &'static [&'static str]| {
            Body::from_stream(futures_util::stream::iter(chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk))))
        };
        let ask =
            async |body| <Json<Shape> as OptionalFromRequest<_>>::from_request(Request::new(body), &Limit(100)).await;
        for empty in [Body::empty(), in_chunks(&[]), in_chunks(&[""])] {
            assert!(ask(empty).await.unwrap().is_none());
        }
        assert_eq!(ask(in_chunks(&["{}"])).await.unwrap_err().status(), 415);
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_413_announced_or_not() {
        assert_eq!(ask("application/json", "x".repeat(101), 100).await.unwrap_err().status(), 413);
        let chunks = futures_util::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>("0123456789")));
        let refused = ask("application/json", Body::from_stream(chunks), 100).await.unwrap_err();
        assert_eq!(refused.status(), 413);
    }
}
