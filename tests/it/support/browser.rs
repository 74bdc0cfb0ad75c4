//! A real browser: Chromium without a window, driven over the DevTools protocol.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::process::Ending;

/// How long the browser may take for anything: it is heavy, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a browser may be called.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// One browser at a time: each is several processes.
static ONE: Mutex<()> = Mutex::const_new(());

/// A page in a browser that ends with its owner.
pub(crate) struct Browser {
    _process: Ending,
    _profile: TempDir,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    next: u64,
    /// What the page complained of: errors of scripts, of the console, of its policy. Answers that are refusals are none.
    complaints: Vec<String>,
    _only: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one; nothing, and a line that says so, where this machine has none.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        let Some(mut command) = command() else {
            // Seen with `--nocapture`, and in CI's log.
            eprintln!(
                "SKIPPED {test}: there is no browser. Install Chromium (Debian: `apt-get install chromium`), or name one in \
                 SERINUS_TEST_BROWSER"
            );
            return None;
        };
        let only = ONE.lock().await;
        let profile = tempfile::tempdir().unwrap();
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            .args(["--no-first-run", "--no-default-browser-check", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Ending(command.spawn().unwrap());
        let (port, path) = address(&profile.path().join("DevToolsActivePort")).await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // Screenshots are messages, too.
        let config =
            WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) =
            tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await.unwrap();
        let mut browser = Self {
            _process: process,
            _profile: profile,
            socket,
            session: None,
            next: 0,
            complaints: Vec::new(),
            _only: only,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(ToOwned::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.screen(1280, 1240).await;
        Some(browser)
    }

    /// One command of the protocol, and its result.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        let answer = async {
            loop {
                let Message::Text(text) = self.socket.next().await.unwrap().unwrap() else { continue };
                let mut message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == id {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].take();
                }
                self.hear(&message);
            }
        };
        timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("no answer to {method}"))
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => params["exceptionDetails"].to_string(),
            "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "warning" => {
                params["args"].to_string()
            }
            // What the network has to say of is what the page is told: 412, no connection.
            "Log.entryAdded" if params["entry"]["source"] != "network" => params["entry"].to_string(),
            "Page.javascriptDialogOpening" => format!("a script ran: {params}"),
            _ => return,
        };
        self.complaints.push(complaint);
    }

    /// Fails where the page complained of anything.
    #[track_caller]
    pub(crate) fn check_silent(&self) {
        assert!(self.complaints.is_empty(), "{:#?}", self.complaints);
    }

    /// Shows a screen of this size; one that is narrower than 600 is a phone's.
    pub(crate) async fn screen(&mut self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// What the user likes: `light` or `dark`.
    pub(crate) async fn theme(&mut self, theme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Has a script run before those of each page that is loaded from now on.
    pub(crate) async fn before_each_page(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    }

    /// Goes to a page.
    pub(crate) async fn open(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
    }

    /// What an expression, or a promise, comes to in the page.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Waits until an expression is true in the page; tells what it shows where that never comes.
    pub(crate) async fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        // A page that is just being loaded has no body.
        let probe =
            format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        while self.eval(&probe).await != true {
            if Instant::now() > deadline {
                let text = self.eval("document.body?.innerText").await;
                panic!(
                    "never came true: {expression}\n{:#?}\n{}",
                    self.complaints,
                    text.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Presses keys, one after the other, as they are named in DOM events.
    pub(crate) async fn keys(&mut self, keys: &[&str]) {
        for key in keys {
            let (key, code, text) = match *key {
                "Tab" => ("Tab", 9, ""),
                "Enter" => ("Enter", 13, "\r"),
                "Escape" => ("Escape", 27, ""),
                "ArrowRight" => ("ArrowRight", 39, ""),
                "ArrowLeft" => ("ArrowLeft", 37, ""),
                "Home" => ("Home", 36, ""),
                "End" => ("End", 35, ""),
                other => panic!("no such key: {other}"),
            };
            let mut press =
                json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
            if !text.is_empty() {
                press["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", press.clone()).await;
            press["type"] = json!("keyUp");
            self.call("Input.dispatchKeyEvent", press).await;
        }
    }

    /// Types a text where the focus is.
    pub(crate) async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Goes on with Tab until what has the focus is as wanted: an expression of `at`, the element.
    pub(crate) async fn tab_to(&mut self, wanted: &str) {
        for _ in 0..60 {
            self.keys(&["Tab"]).await;
            if self.eval(&format!("((at) => Boolean({wanted}))(document.activeElement)")).await == true {
                return;
            }
        }
        panic!("the focus never comes to: {wanted}");
    }

    /// A picture of what is seen, as PNG.
    pub(crate) async fn picture(&mut self, file: &Path) {
        let shot =
            self.call("Page.captureScreenshot", json!({"format": "png", "optimizeForSpeed": false})).await;
        let data = base64::prelude::BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, data).unwrap();
    }
}

fn command() -> Option<Command> {
    if let Some(named) = std::env::var_os("SERINUS_TEST_BROWSER") {
        return Some(Command::new(named));
    }
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .flat_map(|dir| NAMES.map(|name| dir.join(name)))
        .find(|p| p.is_file())?;
    Some(Command::new(found))
}

/// Where a browser that starts says that it listens.
async fn address(file: &Path) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Some((port, path)) = text.split_once('\n')
            && path.starts_with('/')
        {
            return (port.parse().unwrap(), path.trim().to_owned());
        }
        assert!(Instant::now() < deadline, "the browser does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
