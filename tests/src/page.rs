//! A page that tells how to find something: its commands, its queries to other tools, what `cargo xtask otlp` prints, and
//! its pictures, in the order in which they stand.

use std::collections::BTreeMap;

use url::Url;

use crate::collector::Span;
use crate::transcript::{self, Step};

/// A piece of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Commands.
    Steps(Vec<Step>),
    /// A question to another tool.
    Query {
        /// In which language: `promql`, `traceql`, `logql`, `jaeger`.
        language: String,
        /// The question.
        text: String,
    },
    /// What `cargo xtask otlp` prints of a trace: the one of this variable, or that which a command before has sent.
    Otlp {
        /// `$name`.
        of: Option<String>,
        /// Line by line.
        lines: Vec<String>,
    },
    /// `<!-- path | selector | text -->`, and the picture below it: where to look, at what, and what it says.
    Picture {
        /// Below the admin listener.
        path: String,
        /// Of what it is a picture.
        selector: String,
        /// What must be there.
        text: String,
        /// Below the folder of the page.
        file: String,
    },
}

/// All pieces of a page.
///
/// # Panics
///
/// If a picture has no place.
pub fn pieces(page: &str) -> Vec<Piece> {
    let (mut pieces, mut place) = (Vec::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(head) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            pieces.extend(fenced(head, &body));
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            place = Some(comment.split(" | ").map(str::to_owned).collect::<Vec<_>>());
        } else if let Some((_, file)) = line.strip_prefix("![").and_then(|rest| rest.split_once("](")) {
            let place = place.take().unwrap_or_else(|| panic!("where is it to be seen: {line}"));
            let [path, selector, text] = place.try_into().unwrap_or_else(|place| panic!("{place:?}"));
            pieces.push(Piece::Picture { path, selector, text, file: file.trim_end_matches(')').to_owned() });
        }
    }
    pieces
}

fn fenced(head: &str, body: &[&str]) -> Option<Piece> {
    let lines = || body.iter().map(|line| (*line).to_owned()).collect();
    match head {
        "console" => Some(Piece::Steps(transcript::steps(&body.join("\n")))),
        "otlp" => Some(Piece::Otlp { of: None, lines: lines() }),
        "promql" | "traceql" | "logql" | "jaeger" => {
            Some(Piece::Query { language: head.to_owned(), text: body.join("\n") })
        }
        _ => head.strip_prefix("otlp-of ").map(|of| Piece::Otlp { of: Some(of.to_owned()), lines: lines() }),
    }
}

/// What Jaeger or Tempo would ask of a span: each condition is a name, a sign and a value.
pub type Conditions = Vec<(String, char, String)>;

/// The conditions of `{ span.a = "x" && duration > 5s }`: of TraceQL what the page needs.
pub fn traceql(query: &str) -> Conditions {
    let inside = query.trim().trim_start_matches('{').trim_end_matches('}');
    let condition = |text: &str| {
        let mut words = text.split_whitespace();
        let [name, sign, value] = [words.next(), words.next(), words.next()].map(|word| word.expect("a condition"));
        (name.trim_start_matches("span.").to_owned(), sign.chars().next().unwrap(), value.trim_matches('"').to_owned())
    };
    inside.split("&&").map(condition).collect()
}

/// The conditions of `http://.../search?service=a&operation=b&minDuration=5s&tags={...}`, the address of a search in Jaeger.
///
/// # Panics
///
/// If it is none.
pub fn jaeger(query: &str) -> Conditions {
    let address = Url::parse(query.trim()).expect("an address");
    assert_eq!(address.path(), "/search", "{query}");
    let mut conditions = Vec::new();
    for (field, value) in address.query_pairs() {
        match field.as_ref() {
            "service" => conditions.push(("resource.service.name".to_owned(), '=', value.into_owned())),
            "operation" => conditions.push(("name".to_owned(), '=', value.into_owned())),
            "minDuration" => conditions.push(("duration".to_owned(), '>', value.into_owned())),
            "tags" => {
                let tags: BTreeMap<String, String> = serde_json::from_str(&value).expect("tags are texts in JSON");
                conditions.extend(tags.into_iter().map(|(name, value)| (name, '=', value)));
            }
            _ => panic!("{field} is no field of the search"),
        }
    }
    conditions
}

/// Whether a span is one that is asked for.
pub fn is_found(span: &Span, conditions: &Conditions) -> bool {
    conditions.iter().all(|(name, sign, value)| match (name.as_str(), sign) {
        ("duration", '>') => {
            let seconds: f64 = value.trim_end_matches('s').parse().unwrap();
            (span.end_ns - span.start_ns) as f64 > seconds * 1e9
        }
        ("name", '=') => span.name == *value,
        ("error", '=') => span.failed.to_string() == *value,
        ("resource.service.name", '=') => span.resource.get("service.name") == Some(value),
        (_, '=') => span.attributes.get(name) == Some(value),
        _ => panic!("{name} {sign} {value} is not understood"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_in_its_order() {
        let page = "# X\n```console\n$ ls\n```\ntext\n<!-- /a | b | c d -->\n![A b](p/x.png)\n```promql\nup\n```\n```rust\nfn\n```\n```otlp-of $t\na\n```\n";
        let picture = |text: &str| text.to_owned();
        assert_eq!(
            pieces(page),
            [
                Piece::Steps(vec![Step { command: "ls".into(), expected: vec![] }]),
                Piece::Picture {
                    path: picture("/a"),
                    selector: picture("b"),
                    text: picture("c d"),
                    file: picture("p/x.png")
                },
                Piece::Query { language: "promql".into(), text: "up".into() },
                Piece::Otlp { of: Some("$t".into()), lines: vec!["a".into()] },
            ]
        );
    }

    #[test]
    fn both_ways_to_ask_for_a_span_are_understood() {
        let told = traceql(r#"{ span.job.kind = "a" && name = "b" && duration > 5s }"#);
        let condition = |name: &str, sign, value: &str| (name.to_owned(), sign, value.to_owned());
        assert_eq!(
            told,
            [condition("job.kind", '=', "a"), condition("name", '=', "b"), condition("duration", '>', "5s")]
        );
        let told = jaeger(r#"http://a/search?service=s&operation=b&minDuration=5s&tags={"error":"true"}"#);
        let expected = [
            condition("resource.service.name", '=', "s"),
            condition("name", '=', "b"),
            condition("duration", '>', "5s"),
            condition("error", '=', "true"),
        ];
        assert_eq!(told, expected);
    }
}
