//! A panic leaves the terminal as it was, and its message to be read: on a real one, by way of `script`.
//!
//! No router can make this program panic, as far as is known. So this file's own program is run on the terminal, for a test that does.

use std::env;
use std::io::Read as _;
use std::process::{Command, Stdio};

use super::*;

/// What the program on the terminal is to do.
const DOES: &str = "SERINUS_TEST_LIVE";
/// Goes to a screen of its own, and leaves it.
const SCREEN: [&str; 2] = ["\u{1b}[?1049h", "\u{1b}[?1049l"];
const CURSOR: &str = "\u{1b}[?25h";

/// How long it may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the other tests run.
#[test]
#[ignore = "a part of the tests beside it, which run it on a terminal"]
fn what_is_run_on_the_terminal() {
    let Ok(does) = env::var(DOES) else { return };
    let list = || RouteList { generation: 0, problems: Vec::new(), replicas: Vec::new(), routes: Vec::new() };
    let mut screen = Screen::new("http://127.0.0.1:9901".to_owned(), false);
    screen.heard(list(), Instant::now());
    let (tell, news) = mpsc::sync_channel(2);
    let mut terminal = Terminal::take().unwrap();
    match does.as_str() {
        "panics while it draws" => {
            terminal.0.draw(|frame| screen.draw(frame, Instant::now())).unwrap();
            terminal.0.draw(|_| panic!("as a test wants it")).unwrap();
        }
        "panics while it asks" => {
            // Whoever waits for signals could tell something yet.
            let asking = ask(|| panic!("as a test wants it"), tell.clone()).unwrap();
            let error = show(&mut terminal.0, &mut screen, &news, &asking).unwrap_err();
            drop(terminal);
            println!("it ends: {error}");
        }
        other => panic!("nobody knows how it {other}"),
    }
}

/// What the terminal shows of that, and how it was set before and after.
fn on_a_terminal(does: &str) -> Option<String> {
    let asked = Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !asked.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: there is no `script` of util-linux here. Debian has it in the package `bsdutils`."
        );
        return None;
    }
    let program = env::current_exe().unwrap();
    let line = format!(
        "stty rows 30 cols 100; stty -g; '{}' --exact cli::live::tests::what_is_run_on_the_terminal --ignored --nocapture; stty -g; echo over.",
        program.display()
    );
    let mut script = Command::new("script");
    script
        .args(["-qefc", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env(DOES, does)
        .env("RUST_BACKTRACE", "0");
    // Keys may come, and do not.
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = script.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            // With it the terminal goes, and all that runs on it.
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it does not end: {:?}", String::from_utf8_lossy(&reading.join().unwrap()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let screen = String::from_utf8_lossy(&reading.join().unwrap()).into_owned();
    let settings: Vec<_> = screen.lines().filter(|line| line.matches(':').count() > 20).collect();
    assert_eq!(settings.len(), 2, "{screen:?}");
    // What leaves the screen may come before it in the line.
    assert!(settings[1].trim_end().ends_with(settings[0].trim_end()), "{settings:?}");
    Some(screen)
}

/// The message comes after the screen was left, and the cursor is seen in the end.
#[track_caller]
fn is_left_in_order(screen: &str) {
    let at = |what: &str| screen.find(what).unwrap_or_else(|| panic!("{what:?} in {screen:?}"));
    assert!(at(SCREEN[0]) < at(SCREEN[1]) && at(SCREEN[1]) < at("as a test wants it"), "{screen:?}");
    assert!(at(CURSOR) > at(SCREEN[0]), "{screen:?}");
    let (_, after) = screen.rsplit_once(SCREEN[0]).unwrap();
    assert!(after.contains(CURSOR), "{screen:?}");
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    let Some(screen) = on_a_terminal("panics while it draws") else { return };
    is_left_in_order(&screen);
}

#[test]
fn a_panic_of_the_one_who_asks_ends_it() {
    let Some(screen) = on_a_terminal("panics while it asks") else { return };
    is_left_in_order(&screen);
    let (_, after) = screen.split_once("as a test wants it").unwrap();
    assert!(after.contains("it ends: nobody asks the router any more"), "{screen:?}");
}
