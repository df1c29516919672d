//! Five incidents, replayed from `docs/inspecting.md`: its commands at a real service, its questions to Prometheus at a real one,
//! those to Tempo, Loki and Jaeger at what the service has sent, and its pictures in a real browser.
//!
//! `WRITE_DOCS=1 cargo xtask test -p tests --test docs_inspecting` takes the pictures anew. Whenever a file of the console changes,
//! `docs/pictures/SOURCE` says that it has to be done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tests::binary::workspace;
use tests::browser::Screen;
use tests::collector::Log;
use tests::page::{Conditions, Piece, is_found, jaeger, pieces, traceql};
use tests::transcript::{self, Shell};
use tests::{Browser, Client, Collector, Prometheus, Protocol, Service, Viewer, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A picture of the page weighs no more, in bytes.
const PICTURE_MAX: usize = 200_000;

/// As wide as a page of text.
const SCREEN: Screen = Screen { width: 860, height: 500, scheme: "light", phone: false };

/// Here the tree gives its messages lines of their own.
const NARROW: Screen = Screen { width: 630, ..SCREEN };

/// No picture is higher, in pixels, but for its margin.
const PICTURE_HEIGHT: u32 = 860;

/// Set to have the pictures taken anew.
const WRITE: &str = "WRITE_DOCS";

/// What a tool has nothing to say of: chapter, tool, why.
const EXCUSED: [(&str, &str, &str); 1] =
    [("A socket is lost", "logql", "it is logged at DEBUG only, and the page says how to have that")];

/// Beside the pictures: what they were taken of.
const SOURCE: &str = "pictures/SOURCE";

/// The names of the console's own files and a hash over all that is in them, line by line as `sha256sum` has it.
fn source() -> String {
    let console = workspace().join("app/src/http/admin/console");
    let files = std::fs::read_dir(console).unwrap().map(|entry| entry.unwrap().path());
    let is_shown = |path: &PathBuf| {
        path.extension().is_some_and(|kind| ["js", "css", "html", "svg"].iter().any(|each| kind == *each))
    };
    let mut lines: Vec<String> = files
        .filter(is_shown)
        .map(|path| {
            let hash = Sha256::digest(std::fs::read(&path).unwrap());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{hash}  {}\n", path.file_name().unwrap().display())
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn folder() -> PathBuf {
    workspace().join("docs")
}

fn page() -> String {
    std::fs::read_to_string(folder().join("inspecting.md")).unwrap()
}

/// All that the page is held against.
struct World {
    service: Service,
    shell: Shell,
    collector: Collector,
    viewer: Viewer,
    prometheus: Option<Prometheus>,
    browser: Option<Browser>,
}

impl World {
    async fn open() -> World {
        let (collector, viewer) = (Collector::start().await, Viewer::start().await);
        let service = Service::setup().telemetry(&collector, Protocol::HttpProtobuf).start().await;
        let shell = Shell::new(service.home().path())
            .replacing("127.0.0.1:8080", service.api().authority())
            .replacing("127.0.0.1:8081", service.admin().authority())
            .replacing("127.0.0.1:4318", viewer.http.trim_start_matches("http://"));
        let (prometheus, browser) = (Prometheus::start(&service).await, Browser::open().await);
        World { service, shell, collector, viewer, prometheus, browser }
    }

    async fn play(&self, piece: &Piece) {
        match piece {
            Piece::Steps(steps) => {
                for step in steps {
                    self.shell.play(step, SOON).await;
                }
            }
            Piece::Query { language, text } => self.asked(language, &self.shell.with_variables(text).await).await,
            Piece::Otlp { of, lines } => self.printed(of.as_deref(), lines).await,
            Piece::Picture { path, selector, text, file } => {
                let path = self.shell.with_variables(path).await;
                self.seen(&path, selector, text, &folder().join(file)).await;
            }
        }
    }

    /// The question has an answer.
    async fn asked(&self, language: &str, query: &str) {
        let what = format!("an answer to {query}");
        match language {
            "promql" => {
                let Some(prometheus) = &self.prometheus else { return };
                eventually(&what, SOON, || async { (!prometheus.ask(query).await.is_empty()).then_some(()) }).await;
            }
            "logql" => drop(self.collector.log(&what, SOON, |log| is_logged(log, query)).await),
            _ => {
                let conditions: Conditions = if language == "jaeger" { jaeger(query) } else { traceql(query) };
                self.collector.span(&what, SOON, |span| is_found(span, &conditions)).await;
            }
        }
    }

    /// `cargo xtask otlp` prints the trace like this.
    async fn printed(&self, of: Option<&str>, lines: &[String]) {
        if let Some(of) = of {
            let trace = self.shell.with_variables(of).await;
            let otlp = self.service.admin().get(&format!("/admin/traces/{trace}/otlp")).await.expect(200).json();
            Client::new(&self.viewer.http).post("/v1/traces", &otlp).await.expect(200);
        }
        let anywhere: Vec<String> = [vec!["...".to_owned()], lines.to_vec(), vec!["...".to_owned()]].concat();
        eventually(&format!("the viewer prints {lines:#?}"), SOON, || async {
            transcript::matches(&anywhere, &self.viewer.process.stdout()).then_some(())
        })
        .await;
    }

    async fn seen(&self, path: &str, selector: &str, text: &str, file: &Path) {
        if let Some(browser) = &self.browser {
            browser.use_screen(if path == "/console" { NARROW } else { SCREEN }).await;
            browser.go(&format!("{}{path}", self.service.admin().base())).await;
            browser.text(selector, text).await;
            if std::env::var_os(WRITE).is_some() {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, browser.picture_of(selector, PICTURE_HEIGHT).await).unwrap();
            }
        }
        let picture = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(
            picture.starts_with(b"\x89PNG") && picture.len() < PICTURE_MAX,
            "{}: {}",
            file.display(),
            picture.len()
        );
    }
}

/// Whether Loki would find the record: by the labels and the structure that it makes of OTLP, dots as underscores.
fn is_logged(log: &Log, query: &str) -> bool {
    let (labels, rest) = query.trim().trim_start_matches('{').split_once('}').unwrap();
    let stages = rest.split('|').map(str::trim).filter(|stage| !stage.is_empty());
    std::iter::once(labels).chain(stages).all(|stage| {
        let (name, value) = stage.split_once('=').unwrap_or_else(|| panic!("{stage} is not understood"));
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "" => log.body.contains(value),
            "service_name" => log.resource.get("service.name").is_some_and(|known| known == value),
            "trace_id" => log.trace_id == value,
            "detected_level" => log.severity.eq_ignore_ascii_case(value),
            other => log.attributes.iter().any(|(key, known)| key.replace('.', "_") == other && known == value),
        }
    })
}

#[tokio::test]
async fn each_of_the_five_incidents_is_found_as_the_page_says() {
    let world = World::open().await;
    for piece in &pieces(&page()) {
        world.play(piece).await;
    }
    if let Some(browser) = world.browser {
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(folder().join(SOURCE), source()).unwrap();
        }
        assert_eq!(browser.complaints(&[]).await, Vec::<String>::new());
        browser.close().await;
    }
}

#[test]
fn every_chapter_has_all_ways_to_the_cause() {
    let page = page();
    let ways = ["promql", "traceql", "logql", "jaeger"];
    let chapters: Vec<&str> = page.split("\n## ").filter(|chapter| chapter.contains("](pictures/")).collect();
    assert_eq!(chapters.len(), 5, "five incidents");
    for chapter in chapters {
        let found = pieces(chapter);
        let has = |wanted: &str| {
            found.iter().any(|piece| matches!(piece, Piece::Query { language, .. } if language == wanted))
        };
        let title = chapter.lines().next().unwrap();
        assert!(found.iter().any(|piece| matches!(piece, Piece::Steps(_))), "{title}: commands");
        assert!(found.iter().any(|piece| matches!(piece, Piece::Picture { .. })), "{title}: console");
        assert!(found.iter().any(|piece| matches!(piece, Piece::Otlp { .. })), "{title}: terminal");
        for way in ways {
            let has_nothing_to_say = EXCUSED.iter().any(|(chapter, language, _)| title == *chapter && way == *language);
            assert_ne!(has(way), has_nothing_to_say, "{title}: {way}");
        }
    }
}

#[test]
fn the_pictures_are_of_the_console_as_it_is() {
    if std::env::var_os(WRITE).is_some() {
        return;
    }
    let taken_of = std::fs::read_to_string(folder().join(SOURCE)).unwrap_or_default();
    let command = format!("{WRITE}=1 cargo xtask test -p tests --test docs_inspecting");
    assert!(taken_of == source(), "the console has changed since its pictures were taken; `{command}` takes them anew");
}

#[test]
fn no_picture_lies_about_that_is_not_in_the_page() {
    let page = page();
    for entry in std::fs::read_dir(folder().join("pictures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "SOURCE" || page.contains(&format!("](pictures/{name})")), "{name}");
    }
}
