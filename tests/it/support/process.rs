//! The real binary as a child process: what it prints, where it listens, how it ends.
//!
//! It inherits nothing of the environment, takes ports that the system chooses, and is ended by its own process id.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, eventually};

/// What a command that ended has said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it wrote, of a command that did what it was asked.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// The binary with these arguments, in an empty environment.
pub(crate) fn serinus(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end, which must come in time.
pub(crate) fn say(mut command: Command) -> Said {
    let mut child = Ending(command.spawn().unwrap());
    let out = read_all(child.0.stdout.take().unwrap());
    let err = read_all(child.0.stderr.take().unwrap());
    let status = child.wait(PATIENCE);
    Said { code: status.code(), out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Reads to the end, beside.
pub(crate) fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// A child process that ends with its owner.
pub(crate) struct Ending(pub(crate) Child);

impl Ending {
    #[track_caller]
    pub(crate) fn wait(&mut self, most: Duration) -> ExitStatus {
        let deadline = Instant::now() + most;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {most:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Has ended already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines as they come.
type Lines = Arc<Mutex<Vec<String>>>;

/// Reads lines to the end, but not while `deaf`.
fn collect(from: impl Read + Send + 'static, deaf: &Arc<AtomicBool>) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let (into, deaf) = (Arc::clone(&lines), Arc::clone(deaf));
    let reading = thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            into.lock().unwrap().push(line.unwrap());
            while deaf.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    (lines, reading)
}

/// A running router.
pub(crate) struct Process {
    child: Ending,
    out: Lines,
    log: Lines,
    reading: Vec<JoinHandle<()>>,
    deaf: Arc<AtomicBool>,
    pub(crate) web: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The router's binary: the one that was built with the tests, or `SERINUS_TEST_BINARY`, say an optimised one.
fn program() -> std::ffi::OsString {
    std::env::var_os("SERINUS_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_serinus").into())
}

impl Process {
    /// Starts `serinus run` with this config file, and waits until it listens.
    pub(crate) async fn start(config: &Path) -> Self {
        Self::spawn(serinus(&["run", "--config", &config.display().to_string()])).await
    }

    /// As [`Process::start`], after a shell has said `before`: limits, and signals that are not heard.
    pub(crate) async fn start_limited(before: &str, config: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &format!("{before}; exec \"$0\" run --config \"$1\"")])
            .arg(program())
            .arg(config);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command).await
    }

    /// As [`Process::start`], with this command.
    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut child = Ending(command.spawn().unwrap());
        let deaf = Arc::default();
        let (out, reading_out) = collect(child.0.stdout.take().unwrap(), &deaf);
        let (log, reading_log) = collect(child.0.stderr.take().unwrap(), &deaf);
        let address = |message: &str| {
            let found = logged(&log, message)?;
            Some(found["address"].as_str().unwrap().parse::<SocketAddr>().unwrap())
        };
        let addresses = eventually("it listens", || {
            if let Some(status) = child.0.try_wait().unwrap() {
                panic!("ended with {status}: {:?}", log.lock().unwrap());
            }
            Some((address("listening")?, address("admin API listening")?))
        });
        let (web, admin) = addresses.await;
        Self { child, out, log, reading: vec![reading_out, reading_log], deaf, web, admin }
    }

    /// Runs a client command on it.
    pub(crate) fn client(&self, args: &[&str]) -> Said {
        let mut command = serinus(args);
        command.env("SERINUS_ADMIN", self.admin.to_string());
        say(command)
    }

    /// The first log line with a message that begins so.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        logged(&self.log, message)
    }

    /// How many log lines have a message that begins so.
    pub(crate) fn times_logged(&self, message: &str) -> usize {
        all_logged(&self.log, message).len()
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Every log line so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Reads nothing more of what it writes, or again.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// How much memory it has that is no file's, in KiB: the program itself is left out, for the kernel may drop that.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Waits for its end, however little is read of what it writes, and gives the status.
    #[track_caller]
    pub(crate) fn wait(&mut self, most: Duration) -> ExitStatus {
        self.child.wait(most)
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits for its end, and gives the status and all that it wrote to stdout.
    #[track_caller]
    pub(crate) fn end(mut self, most: Duration) -> (ExitStatus, Vec<String>) {
        self.deafen(false);
        let status = self.child.wait(most);
        for reading in self.reading {
            reading.join().unwrap();
        }
        let out = self.out.lock().unwrap().clone();
        (status, out)
    }
}

fn logged(log: &Lines, message: &str) -> Option<Value> {
    all_logged(log, message).into_iter().next()
}

fn all_logged(log: &Lines, message: &str) -> Vec<Value> {
    let lines = log.lock().unwrap();
    let parsed = lines.iter().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("a log line is not JSON: {error}: {line}"))
    });
    parsed.filter(|line: &Value| line["message"].as_str().is_some_and(|m| m.starts_with(message))).collect()
}
