//! `docs/telemetry.md` has the catalogue word for word.

use tests::binary::workspace;

use super::catalogue::said;

/// Where the page quotes the command.
const BEGIN: &str = "<!-- The output of `app telemetry catalogue`. -->\n\n```text\n";
const END: &str = "```\n\n<!-- The end of the output. -->\n";

/// Set to have the page written anew.
const WRITE: &str = "WRITE_DOCS";

#[test]
fn the_page_on_telemetry_has_the_catalogue_as_the_binary_says_it() {
    let path = workspace().join("docs/telemetry.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the begin of the catalogue");
    let (found, after) = rest.split_once(END).expect("the end of the catalogue");
    let expected = said(&[]);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(found == expected, "write the page anew: {WRITE}=1 cargo test -p tests --test telemetry docs");
}
