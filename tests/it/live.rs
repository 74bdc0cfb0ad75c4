//! `serinus status --watch` as its users run it: on a terminal, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::loopback_address;
use crate::support::eventually;
use crate::support::process::{Ending, Process, serinus};
use crate::support::upstream::Upstream;

const SOON: Duration = Duration::from_secs(20);
/// Leaves the screen of its own, and shows the cursor again.
const GIVEN_BACK: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

struct Lab {
    _pod: Upstream,
    _folder: tempfile::TempDir,
    process: Process,
}

async fn lab() -> Lab {
    let pod = Upstream::start((loopback_address(), 0).into(), "v1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    let config = format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'}}\n\
         discovery: {{static: {{web/shop: [{{address: '{}'}}]}}}}\nroutes:\n  - name: shop\n    service: web/shop\n    \
         versions:\n      - {{name: first}}\n",
        pod.address
    );
    fs::write(&file, config).unwrap();
    let process = Process::start(&file).await;
    Lab { _pod: pod, _folder: folder, process }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_table_is_written_each_second() {
    let lab = lab().await;
    let mut command = serinus(&["status", "--watch"]);
    command.env("SERINUS_ADMIN", lab.process.admin.to_string());
    let mut child = Ending(command.spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut tables = 0;
    for line in lines.by_ref().take(20) {
        let line = line.unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        tables += usize::from(line.starts_with("ROUTE"));
        if tables == 3 {
            return;
        }
    }
    panic!("{tables} tables");
}

/// A command on a terminal of 100 by 30, by way of `script`.
struct OnTerminal {
    script: Ending,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(lab: &Lab) -> Self {
        let program = serinus(&[]).get_program().to_string_lossy().into_owned();
        // Before and after, how the terminal is set.
        let line = format!(
            "stty rows 30 cols 100; stty -g; '{program}' status --watch; echo ended with $?.; stty -g; echo over."
        );
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).env("SERINUS_ADMIN", lab.process.admin.to_string());
        command.env("SHELL", "/bin/sh").env_remove("SERINUS_TOKEN_FILE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = Ending(command.spawn().unwrap());
        let keys = script.0.stdin.take().unwrap();
        let mut from = script.0.stdout.take().unwrap();
        let screen = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { script, keys, screen }
    }

    async fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows `{text}`"), || {
            self.screen.lock().unwrap().contains(text).then_some(())
        })
        .await;
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// It has ended with this status, and the terminal is as it was before.
    async fn has_ended(mut self, status: u8) -> String {
        self.shows("over.").await;
        drop(self.keys);
        self.script.wait(SOON);
        let screen = self.screen.lock().unwrap().clone();
        assert!(screen.contains(&format!("ended with {status}.")), "{screen:?}");
        for wanted in GIVEN_BACK {
            assert!(screen.contains(wanted), "{wanted:?} in {screen:?}");
        }
        let settings: Vec<_> = screen.lines().filter(|line| line.matches(':').count() > 20).collect();
        assert_eq!(settings.len(), 2, "{screen:?}");
        // What comes before in the line leaves the screen.
        assert!(settings[1].trim_end().ends_with(settings[0].trim_end()), "{settings:?}");
        screen
    }
}

fn has_script() -> bool {
    let asked = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = asked.is_ok_and(|status| status.success());
    if !there {
        eprintln!(
            "SKIPPED: there is no `script` of util-linux here. Debian has it in the package `bsdutils`."
        );
    }
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_is_a_screen_that_keys_leave() {
    if !has_script() {
        return;
    }
    let lab = lab().await;
    // q, Escape, Ctrl-C.
    for key in ["q", "\u{1b}", "\u{3}"] {
        let mut terminal = OnTerminal::start(&lab);
        terminal.shows("VERSION").await;
        terminal.shows("first").await;
        // A key that means nothing is no reason to leave.
        terminal.press("x");
        terminal.press(key);
        terminal.has_ended(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_last_values_stay_when_the_router_is_gone() {
    if !has_script() {
        return;
    }
    let lab = lab().await;
    let mut terminal = OnTerminal::start(&lab);
    terminal.shows("first").await;
    lab.process.signal("KILL");
    terminal.shows("Old:").await;
    terminal.press("q");
    let screen = terminal.has_ended(0).await;
    assert!(!screen.contains("panicked"), "{screen:?}");
}
