//! How resources look to tenants: small pieces that all of them share.

use actors::model::{Millis, TenantId};
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use jiff::Timestamp;
use utoipa::IntoParams;
use uuid::Uuid;

use super::problem::{FieldError, Problem};

/// A point in time as tenants see it: RFC 3339 in UTC.
pub fn time(at_ms: Millis) -> String {
    // What does not fit into a timestamp was never a time.
    Timestamp::from_millisecond(at_ms).unwrap_or_default().to_string()
}

/// The id in a path. What is no UUID names nothing, so it is a 404 like any other unknown id.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(names("id"), parameter_in = Path)]
pub struct Id(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let id = params.ok().and_then(|params| params.iter().find_map(|(_, value)| Uuid::parse_str(value).ok()));
        id.map(Self).ok_or_else(|| Problem::not_found("id"))
    }
}

/// The two ids in a path such as `/v1/channels/{id}/deliveries/{delivery}`; as [`Id`].
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(names("id", "delivery"), parameter_in = Path)]
pub struct Ids(pub Uuid, pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| Problem::not_found("id"))?;
        let mut ids = params.iter().map(|(_, value)| Uuid::parse_str(value).ok());
        let pair = ids.next().flatten().zip(ids.next().flatten());
        pair.map(|(outer, inner)| Self(outer, inner)).ok_or_else(|| Problem::not_found("id"))
    }
}

/// The tenant that the key belongs to; a route without the middleware that finds it refuses everyone.
#[derive(Debug, Clone)]
pub struct Caller(pub TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let tenant = parts.extensions.get::<TenantId>().cloned();
        tenant.map(Self).ok_or_else(|| Problem::unauthorized("a key is needed", "Bearer"))
    }
}

/// Collects every field that is wrong, so that all of them are answered at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    /// Refuses `field` unless `good`.
    pub fn require(&mut self, field: &str, good: bool, reason: impl FnOnce() -> String) {
        if !good {
            self.0.push(FieldError { field: field.to_owned(), reason: reason() });
        }
    }

    /// Refuses `field` if there is an error, keeps the value if there is none.
    pub fn keep<T, E: ToString>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.require(field, false, || error.to_string())).ok()
    }

    /// An integer within bounds, if it was given at all.
    pub fn within<T: PartialOrd + Copy + std::fmt::Display>(&mut self, field: &str, value: Option<T>, min: T, max: T) {
        let good = value.is_none_or(|value| value >= min && value <= max);
        self.require(field, good, || format!("must be from {min} to {max}"));
    }

    /// What `check` refuses, as fields of `item`.
    pub fn within_item(&mut self, item: &str, check: impl FnOnce(&mut Self)) {
        let mut faults = Self::default();
        check(&mut faults);
        self.0.extend(faults.0.into_iter().map(|FieldError { field, reason }| {
            let field = format!("{item}.{field}");
            FieldError { field, reason }
        }));
    }

    /// A 422 if anything was refused.
    ///
    /// # Errors
    /// The problem with all fields.
    pub fn check(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_in_utc() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(i64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let mut faults = Faults::default();
        faults.within("max_attempts", Some(0), 1, 100);
        faults.within("priority", None, 1, 100);
        assert_eq!(faults.keep("url", Err::<(), _>("is no URL")), None);
        let problem = faults.check().unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.detail()), (422, "2 fields are not valid"));
    }
}
