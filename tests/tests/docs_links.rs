//! Whatever the documents lead to, by a link within the project, is there: the file, and the heading in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use tests::binary::workspace;

/// The texts of the headings and the targets of the links and pictures.
fn read(page: &str) -> (Vec<String>, Vec<String>) {
    let (mut headings, mut targets, mut heading) = (Vec::new(), Vec::new(), None);
    for event in Parser::new_ext(page, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => headings.extend(heading.take()),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                targets.push(dest_url.into_string())
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    (headings, targets)
}

/// The anchors of a page, as GitHub makes them of its headings: a heading that comes again gets a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in read(page).0 {
        let kept = heading.to_lowercase().replace(' ', "-");
        let anchor: String = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|each| !anchors.contains(each));
        anchors.extend(free);
    }
    anchors
}

/// Why nothing is found at `target`, if nothing is.
fn fault(file: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let there = if path.is_empty() { file.to_owned() } else { file.parent().unwrap().join(path) };
    if !there.exists() {
        return Some(format!("{}: there is no {path}", file.display()));
    }
    let anchor = anchor?;
    let page = std::fs::read_to_string(&there).unwrap();
    (!anchors(&page).contains(anchor)).then(|| format!("{}: {target} leads to no heading", file.display()))
}

fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "deploy/README.md"].map(|name| workspace().join(name)).into();
    let pages = std::fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    found.extend(pages.filter(|path| path.extension().is_some_and(|kind| kind == "md")));
    found
}

#[test]
fn every_link_of_the_documents_leads_to_a_file_and_a_heading_that_are_there() {
    let mut faults = Vec::new();
    for file in documents() {
        let targets = read(&std::fs::read_to_string(&file).unwrap()).1;
        faults.extend(targets.iter().filter_map(|target| fault(&file, target)));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_link_to_what_is_not_there_is_found() {
    let file = tempfile::tempdir().unwrap();
    let page = file.path().join("page.md");
    std::fs::write(&page, "# A `b`, c\n## Twice\n## Twice\n[x](#a-b-c)").unwrap();
    for good in ["#a-b-c", "#twice", "#twice-1", "page.md", "page.md#twice", "https://example.com/#no"] {
        assert_eq!(fault(&page, good), None, "{good}");
    }
    for bad in ["#twice-2", "#a", "none.md", "none.md#twice", "page.md#none"] {
        assert!(fault(&page, bad).is_some(), "{bad}");
    }
}
