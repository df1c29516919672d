//! A real browser, headless: what an operator sees, clicks and types.
//!
//! It is driven by WebDriver, and by the browser's own protocol where that has no word for it. Whatever the browser itself
//! complains of (an exception of a script, something its policy forbids) fails the test at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::process::Process;
use crate::{eventually, tools};

pub use fantoccini::key::Key;

/// For what the page does at once, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(30);

/// A name for this machine that is not known for it: to the browser it is another host, and plain HTTP to it is not secure.
pub const ELSEWHERE: &str = "elsewhere.test";

/// A screen: width, height, and how it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// `light` or `dark`.
    pub scheme: &'static str,
    /// Whether it is a phone's.
    pub phone: bool,
}

/// A desk by day.
pub const LIGHT: Screen = Screen { width: 1280, height: 900, scheme: "light", phone: false };
/// The same by night.
pub const DARK: Screen = Screen { scheme: "dark", ..LIGHT };
/// A small phone.
pub const PHONE: Screen = Screen { width: 360, height: 740, scheme: "light", phone: true };

/// A browser with one page. To be closed by [`Browser::close`].
pub struct Browser {
    client: fantoccini::Client,
    _driver: Process,
}

impl Browser {
    /// An empty page; none, said aloud, if there is no browser on this machine.
    pub async fn open() -> Option<Browser> {
        let (chromium, driver) = (tools::find("chromium")?, tools::find("chromedriver")?);
        let mut command = Command::new(driver);
        command.arg("--port=0");
        let driver = Process::spawn(command);
        let port = eventually("the driver tells its port", SOON, || async {
            let lines = driver.stdout();
            let line = lines.iter().find(|line| line.contains("started successfully on port"))?;
            line.trim_end_matches('.').rsplit(' ').next()?.parse::<u16>().ok()
        })
        .await;
        let elsewhere = format!("--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1");
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", &elsewhere];
        let options = json!({ "binary": chromium, "args": arguments });
        let capabilities = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}")).await.expect("a browser");
        let browser = Browser { client, _driver: driver };
        browser.use_screen(LIGHT).await;
        Some(browser)
    }

    /// Looks at the page on this screen from now on.
    pub async fn use_screen(&self, screen: Screen) {
        let Screen { width, height, scheme, phone } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Goes back. A script that does may be run twice: the driver tries again when the page goes away under it.
    pub async fn back(&self) {
        self.client.back().await.unwrap();
    }

    /// Opens another tab in front of the others, and looks at that from now on.
    pub async fn new_tab(&self) {
        let tab = self.client.new_window(true).await.unwrap();
        self.client.switch_to_window(tab.handle).await.unwrap();
    }

    /// Puts the window away, so that nobody sees any of its tabs.
    pub async fn put_away(&self) {
        self.client.minimize_window().await.unwrap();
    }

    /// Takes the window up again.
    pub async fn take_up(&self) {
        self.client.set_window_size(LIGHT.width, LIGHT.height).await.unwrap();
    }

    /// From now on each answer comes so much later.
    pub async fn slow_link(&self, latency: Duration) {
        let ms = u64::try_from(latency.as_millis()).unwrap();
        let link = json!({ "offline": false, "latency": ms, "downloadThroughput": -1, "uploadThroughput": -1 });
        self.devtools("Network.enable", json!({})).await;
        self.devtools("Network.emulateNetworkConditions", link).await;
    }

    /// Runs a script in each page that comes, before all of its own.
    pub async fn run_first(&self, script: &str) {
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
    }

    /// Where it is, without scheme and host.
    pub async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        url[url::Position::BeforePath..].to_owned()
    }

    /// What a script of the test's own returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until what `selector` finds contains `text`, and returns all of it.
    pub async fn text(&self, selector: &str, text: &str) -> String {
        eventually(&format!("{selector} says {text:?}"), SOON, || async {
            let all = self.texts(selector).await;
            all.into_iter().find(|found| found.contains(text))
        })
        .await
    }

    /// The texts of all that `selector` finds now, as they are and not as they look.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)";
        let found = self.client.execute(script, vec![selector.into()]).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// Clicks on the first that `selector` finds, as soon as it can be clicked.
    pub async fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), SOON, || async {
            // It may be drawn again between the two.
            self.client.find(Locator::Css(selector)).await.ok()?.click().await.ok()
        })
        .await;
    }

    /// Types into the first that `selector` finds.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let field = self.client.wait().at_most(SOON).for_element(Locator::Css(selector)).await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Drags over the first that `selector` finds, from one part of its width to another.
    pub async fn drag(&self, selector: &str, from: f64, to: f64) {
        let script = "const { x, y, width, height } = document.querySelector(arguments[0]).getBoundingClientRect();
            return [x, y + height / 2, width]";
        let place = self.client.execute(script, vec![selector.into()]).await.unwrap();
        let [x, y, width]: [f64; 3] = serde_json::from_value(place).unwrap();
        for (kind, part) in [("mousePressed", from), ("mouseMoved", to), ("mouseReleased", to)] {
            let event =
                json!({ "type": kind, "x": x + part * width, "y": y, "button": "left", "buttons": 1, "clickCount": 1 });
            self.devtools("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: impl Into<char>) {
        let actions = KeyActions::new("keys".to_owned());
        let value = key.into();
        let actions = actions.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Keeps a picture of the page for people, below the folder `console` of the target directory.
    pub async fn picture(&self, name: &str) {
        let folder = pictures();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), self.client.screenshot().await.unwrap()).unwrap();
    }

    /// A picture of the first that `selector` finds, as a PNG, also of what is below the window; of what is higher than
    /// `height` the upper part, down to the end of a line. A little smaller than it is on the screen.
    pub async fn picture_of(&self, selector: &str, height: u32) -> Vec<u8> {
        // The picture has no bars to scroll by, and what it is measured by must have none either.
        self.devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        let script = "const whole = document.querySelector(arguments[0]);
            const { x, y, width, bottom } = whole.getBoundingClientRect();
            const limit = y + arguments[1];
            const lines = [...whole.querySelectorAll('li, p, dd, h2, h3')].map((line) => line.getBoundingClientRect().bottom);
            const end = bottom <= limit ? bottom : Math.max(...lines.filter((line) => line <= limit));
            const [left, top] = [Math.max(0, x - 8), Math.max(0, y + scrollY - 8)];
            return { x: left, y: top, width: Math.min(innerWidth - left, width + 16), height: end + scrollY + 8 - top, scale: 0.85 }";
        let clip = self.client.execute(script, vec![selector.into(), height.into()]).await.unwrap();
        let picture = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.devtools("Page.captureScreenshot", picture).await;
        STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()
    }

    /// Lets the page and the test use the clipboard.
    pub async fn allow_the_clipboard(&self) {
        let permissions = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.devtools("Browser.grantPermissions", permissions).await;
    }

    /// How much wider the page is than the screen, in pixels. The window says nothing on a phone: it grows with the page.
    pub async fn overflow(&self) -> i64 {
        let script = "const page = document.documentElement; return page.scrollWidth - page.clientWidth";
        self.run(script).await.as_i64().unwrap()
    }

    /// What the browser complained of, but for answers of these statuses, which the test has provoked.
    pub async fn complaints(&self, expected: &[&str]) -> Vec<String> {
        let answered = self.client.issue_cmd(Extension { path: "se/log", body: json!({ "type": "browser" }) }).await;
        let entries: Vec<Value> = serde_json::from_value(answered.unwrap()).unwrap();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        let said = severe.map(|entry| entry["message"].as_str().unwrap().to_owned());
        said.filter(|said| !expected.iter().any(|status| said.contains(status))).collect()
    }

    /// Ends the browser.
    pub async fn close(self) {
        self.client.close().await.unwrap();
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Extension { path: "goog/cdp/execute", body }).await.unwrap()
    }
}

/// The target directory is the one that the test itself was built in.
fn pictures() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(3).unwrap().join("console")
}

/// A command that the driver of this browser knows beside those of the standard.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
