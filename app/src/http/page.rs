//! Lists, a page at a time: what a query asks for, and the cursor that leads to the next page.
//!
//! A cursor names the last row of the page before (keyset pagination, as on
//! <https://use-the-index-luke.com/no-offset>). So a page costs the same wherever it lies, and rows that are added or
//! deleted meanwhile make no other row appear twice or not at all. To a client it is opaque; it is bound to the kind of
//! list that it came from, and anything else in its place is refused.
//!
//! ```ignore
//! let wanted = query.page("jobs");          // reads `limit` and `cursor`
//! let kind = query.one("kind", Kind::from_str);  // and what else the list knows
//! query.finish()?;                               // 422 with all faults, unknown parameters among them
//! let rows = store.list_jobs(&tenant, wanted.after, wanted.rows()).await?;
//! Ok(Json(wanted.page(rows, |job| Place { at_ms: job.created_at_ms, id: job.id })))
//! ```

use std::convert::Infallible;

use actors::store::Place;
use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::resource::Faults;

/// Rows of a page if nobody says otherwise.
pub const LIMIT_DEFAULT: u32 = 50;

/// Rows of a page at most.
pub const LIMIT_MAX: u32 = 200;

/// The parameters of a request's query, taken out one by one. What nobody has taken at the end is unknown, and refused.
#[derive(Debug)]
pub struct Query {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
    faults: Faults,
}

impl Query {
    /// The parameters of `query`, without its question mark.
    pub fn parse(query: &str) -> Self {
        let left = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { left, known: Vec::new(), faults: Faults::default() }
    }

    /// Every value of `name`, as `read` understands it.
    pub fn all<T, E: ToString>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let values = self.take(name);
        values.iter().filter_map(|value| self.faults.keep(name, read(value))).collect()
    }

    /// The only value of `name`, if it was given.
    pub fn one<T, E: ToString>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, E>) -> Option<T> {
        let values = self.take(name);
        self.faults.require(name, values.len() <= 1, || "may be given once".to_owned());
        self.faults.keep(name, values.first().map(|value| read(value)).transpose()).flatten()
    }

    /// `limit` and `cursor`, for the list of this name.
    pub fn page<K: DeserializeOwned>(&mut self, list: &'static str) -> Wanted<K> {
        let limit = self.one("limit", |text| {
            let within = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            within.ok_or_else(|| format!("must be from 1 to {LIMIT_MAX}"))
        });
        let after = self.one("cursor", |text| read_cursor(list, text));
        Wanted { list, after, limit: limit.unwrap_or(LIMIT_DEFAULT) }
    }

    /// The end of reading.
    ///
    /// # Errors
    /// 422 with everything that was wrong, and with the names of parameters that nobody knows.
    pub fn finish(mut self) -> Result<(), Problem> {
        let known = self.known.join(", ");
        for (name, _) in &self.left {
            self.faults.require(name, false, || match known.as_str() {
                "" => "is unknown, no parameter is".to_owned(),
                known => format!("is unknown, known are: {known}"),
            });
        }
        self.faults.check()
    }

    fn take(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.left.extract_if(.., |(found, _)| found == name).map(|(_, value)| value).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

/// No parameters: whoever gives one expects something of it, and is refused with 422.
#[derive(Debug, Clone, Copy)]
pub struct NoQuery;

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::parse(parts.uri.query().unwrap_or_default()).finish().map(|()| Self)
    }
}

/// The page that was asked for, of a list sorted by `K`.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<K = Place> {
    list: &'static str,
    /// The last row of the page before; the first page has none.
    pub after: Option<K>,
    /// How many rows it may have.
    pub limit: u32,
}

impl<K: Serialize> Wanted<K> {
    /// How many rows to ask the store for: the one too many says that there is a next page.
    pub fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// The page, of [`Wanted::rows`] rows in the order of the list; `key` says where a row stands in it.
    pub fn page<R, T: From<R>>(&self, mut rows: Vec<R>, key: impl Fn(&R) -> K) -> Page<T> {
        let is_more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let last = rows.last().filter(|_| is_more);
        let next_cursor = last.map(|row| self.cursor(&key(row)));
        Page { items: rows.into_iter().map(T::from).collect(), next_cursor }
    }

    /// The cursor of the page behind this place.
    pub fn cursor(&self, last: &K) -> String {
        write_cursor(self.list, last)
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, in the order of the list.
    items: Vec<T>,
    /// Leads to the next page, as the parameter `cursor`; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// What is inside a cursor: which list it belongs to, and where in it.
#[derive(Serialize, Deserialize)]
struct Cursor<L, K>(L, K);

fn write_cursor<K: Serialize>(list: &str, key: &K) -> String {
    // Numbers and plain strings: they can always be written.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Cursor(list, key)).unwrap_or_default())
}

fn read_cursor<K: DeserializeOwned>(list: &str, text: &str) -> Result<K, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let cursor = bytes.and_then(|bytes| serde_json::from_slice::<Cursor<String, K>>(&bytes).ok());
    cursor.filter(|cursor| cursor.0 == list).map(|cursor| cursor.1).ok_or("is no cursor of this list")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(query: &str) -> Result<Wanted<u32>, Problem> {
        let mut query = Query::parse(query);
        let wanted = query.page("numbers");
        query.finish().map(|()| wanted)
    }

    /// The page of the numbers up to `end` that `query` asks for.
    fn page(query: &str, end: u32) -> Value {
        let wanted = wanted(query).unwrap();
        let rows = (wanted.after.map_or(0, |last| last + 1)..end).take(wanted.rows() as usize).collect();
        serde_json::to_value(wanted.page::<u32, u32>(rows, |row| *row)).unwrap()
    }

    #[test]
    fn pages_follow_each_other_to_the_last_which_leads_nowhere() {
        let first = page("limit=2", 5);
        assert_eq!(first["items"], json!([0, 1]));
        let second = page(&format!("limit=2&cursor={}", first["next_cursor"].as_str().unwrap()), 5);
        assert_eq!(second["items"], json!([2, 3]));
        let last = page(&format!("limit=2&cursor={}", second["next_cursor"].as_str().unwrap()), 5);
        assert_eq!(last, json!({"items": [4]}));
        assert_eq!(page("limit=5", 5).get("next_cursor"), None, "a full page at the very end");
        assert_eq!(page("", 500)["items"].as_array().unwrap().len(), LIMIT_DEFAULT as usize);
    }

    #[test]
    fn what_is_no_cursor_of_this_list_is_refused() {
        let foreign = write_cursor("letters", &7);
        let other_key = write_cursor("numbers", &"seven");
        for bad in ["", "x", "bm90IGpzb24", &foreign, &other_key] {
            let problem = wanted(&format!("cursor={bad}")).unwrap_err();
            assert_eq!((problem.status().as_u16(), problem.detail()), (422, "`cursor`: is no cursor of this list"));
        }
        assert_eq!(wanted(&format!("cursor={}", write_cursor("numbers", &7))).unwrap().after, Some(7));
    }

    #[test]
    fn a_limit_is_a_number_from_one_to_the_maximum() {
        for bad in ["0", "201", "-1", "", "ten", "99999999999"] {
            let problem = wanted(&format!("limit={bad}")).unwrap_err();
            assert_eq!(problem.detail(), "`limit`: must be from 1 to 200", "{bad}");
        }
        assert_eq!(wanted("limit=200").unwrap().rows(), 201);
    }

    #[test]
    fn all_faults_of_a_query_are_told_at_once_and_unknown_parameters_by_name() {
        let problem = wanted("limit=0&cursor=x&offset=3&cursor=y").unwrap_err();
        assert_eq!(problem.detail(), "4 fields are not valid");
        assert_eq!(wanted("page=2").unwrap_err().detail(), "`page`: is unknown, known are: limit, cursor");
    }

    #[test]
    fn a_short_query_with_very_many_faults_has_no_long_answer() {
        let problem = wanted(&"a&".repeat(10_000)).unwrap_err();
        assert_eq!(
            (problem.errors().len(), problem.detail()),
            (32, "10000 fields are not valid, here are the first 32")
        );
    }

    #[test]
    fn a_parameter_may_be_repeated_only_where_a_list_is_meant() {
        let mut query = Query::parse("n=1&n=x&n=3");
        assert_eq!(query.all("n", str::parse::<u8>), [1, 3]);
        assert_eq!(query.finish().unwrap_err().detail(), "`n`: invalid digit found in string");
        let mut query = Query::parse("n=1&n=2");
        assert_eq!(query.one("n", str::parse::<u8>), Some(1));
        assert_eq!(query.finish().unwrap_err().detail(), "`n`: may be given once");
    }
}
