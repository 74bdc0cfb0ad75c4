//! The binary with 64 MiB of memory and no more, in a cgroup as a container has it; or with a limit of what it maps.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::support::http::Client;
use crate::support::process::Process;
use crate::support::{eventually, many_files};

const MIB: usize = 1 << 20;
/// What the router has, in MiB.
const MEMORY: usize = 64;
/// What it may map where there are no cgroups, in MiB.
const MAPPED: usize = 128;
/// How many client connections there are at once, and how many beside those that cost more.
const CROWD: usize = 2_000;
const OTHERS: usize = 500;
/// How many send and take large bodies at once, and how large those are.
const HEAVY: usize = 50;
const BODY: usize = 16 * MIB;
/// How long the fields of a large head are: little less than the listener takes.
const HEAD: usize = 60 * 1024;
/// How long all of a round may take on a slow and busy machine.
const LONG: Duration = Duration::from_secs(120);

/// What a pod has done.
#[derive(Default)]
struct Moved {
    /// How many bytes of bodies it was sent.
    taken: AtomicU64,
    /// How many large bodies it has begun to send, and how many bytes of them.
    begun: AtomicU64,
    sent: AtomicU64,
}

/// A pod that takes what it is sent, and says how much that was; `/down` it answers with a large body.
async fn pod() -> (std::net::SocketAddr, Arc<Moved>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let moved = Arc::<Moved>::default();
    let count = Arc::clone(&moved);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            // A connection that the router closes is at its end.
            tokio::spawn(async move { serve(socket, &count).await });
        }
    });
    (address, moved)
}

async fn serve(mut socket: TcpStream, moved: &Moved) -> Option<()> {
    let taken = &moved.taken;
    let (mut buffer, piece) = (Vec::new(), vec![b'x'; 64 * 1024]);
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut left: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        let early = buffer.len() - end;
        buffer.clear();
        left -= early;
        taken.fetch_add(early as u64, Ordering::Relaxed);
        while left > 0 {
            buffer.clear();
            let read = socket.read_buf(&mut buffer).await.ok().filter(|read| *read > 0)?;
            left -= read;
            taken.fetch_add(read as u64, Ordering::Relaxed);
            if buffer.capacity() < piece.len() {
                buffer.reserve(piece.len());
            }
        }
        buffer.clear();
        let mut body = if head.starts_with("get /down ") { BODY } else { 0 };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.ok()?;
        moved.begun.fetch_add(u64::from(body > 0), Ordering::Relaxed);
        while body > 0 {
            let sent = socket.write(&piece[..piece.len().min(body)]).await.ok()?;
            moved.sent.fetch_add(sent as u64, Ordering::Relaxed);
            body -= sent;
        }
    }
}

fn write_config(folder: &Path, pod: std::net::SocketAddr) -> PathBuf {
    let mut text = "listeners: [{name: web, address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\n\
                    drain: {delay: 0s, timeout: 5s}\n"
        .to_owned();
    write!(
        text,
        "discovery: {{static: {{web/svc: [{{address: '{pod}'}}]}}}}\n\
         routes: [{{name: shop, service: web/svc, versions: [{{name: v1}}]}}]\n"
    )
    .unwrap();
    let file = folder.join("serinus.yaml");
    fs::write(&file, text).unwrap();
    file
}

/// Sends a large body.
async fn upload(mut socket: TcpStream) {
    let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..BODY / piece.len() {
        socket.write_all(&piece).await.unwrap();
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// Asks for a large body, and takes it when all the others have asked too and the router has filled what it fills.
async fn download(mut socket: TcpStream, full: Arc<Barrier>) {
    socket.write_all(b"GET /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    full.wait().await;
    let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        match socket.read(&mut buffer).await.unwrap() {
            0 => break,
            read => got += read,
        }
    }
    assert!(got > BODY && got < BODY + 4096, "{got}");
}

/// Waits until all large bodies, of which there were `before`, have begun, and no more of them is taken: no byte in a number of looks.
async fn until_full(moved: &Moved, before: u64) {
    const LOOKS: u32 = 20;
    let (mut last, mut same) = (0, 0);
    eventually("no more of the large bodies is taken", || {
        let begun = moved.begun.load(Ordering::Relaxed) - before;
        let sent = moved.sent.load(Ordering::Relaxed);
        same = if begun == HEAVY as u64 && sent == last { same + 1 } else { 0 };
        last = sent;
        (same >= LOOKS).then_some(())
    })
    .await;
}

/// Sends a large head, its end only when all the others have sent theirs.
async fn large_head(mut socket: TcpStream, sent: Arc<Barrier>) {
    let field = format!("X-Large: {}\r\n", "x".repeat(6_000));
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", field.repeat(HEAD / field.len()));
    socket.write_all(head.as_bytes()).await.unwrap();
    sent.wait().await;
    socket.write_all(b"\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer));
}

/// Waits until all have ended, and fails as the first that fails.
async fn all(mut tasks: JoinSet<()>) {
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    tokio::time::timeout(LONG, ended).await.expect("in time");
}

/// The crowd comes, is served, and leaves, three times.
async fn crowds(process: &Process, what: &str) {
    let alone = process.memory();
    let mut after = Vec::new();
    for _ in 0..3 {
        many_files();
        let _crowd = crowd(process, CROWD).await;
        after.push(process.memory());
    }
    println!("{what}: {alone} KiB alone, {after:?} KiB with {CROWD} connections");
}

/// So many connections that have had an answer.
async fn crowd(process: &Process, size: usize) -> Vec<Client> {
    let mut crowd: Vec<Client> = (0..size).map(|_| Client::new(process.web)).collect();
    for client in &mut crowd {
        assert_eq!(client.once(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap().status, 200);
    }
    crowd
}

/// Large heads, large bodies up and large bodies down, while others keep their connections.
async fn large_requests(process: &Process, moved: &Moved, what: &str) {
    let mut others = crowd(process, OTHERS).await;
    let mut memory = vec![process.memory()];
    let (barrier, mut tasks) = (Arc::new(Barrier::new(HEAVY)), JoinSet::new());
    for _ in 0..HEAVY {
        tasks.spawn(large_head(TcpStream::connect(process.web).await.unwrap(), Arc::clone(&barrier)));
    }
    all(tasks).await;
    memory.push(process.memory());
    let (before, mut tasks) = (moved.taken.load(Ordering::Relaxed), JoinSet::new());
    for _ in 0..HEAVY {
        tasks.spawn(upload(TcpStream::connect(process.web).await.unwrap()));
    }
    all(tasks).await;
    assert_eq!(moved.taken.load(Ordering::Relaxed) - before, (HEAVY * BODY) as u64);
    memory.push(process.memory());
    // Beside those who ask there is one who says when.
    let (full, mut tasks) = (Arc::new(Barrier::new(HEAVY + 1)), JoinSet::new());
    let before = moved.begun.load(Ordering::Relaxed);
    for _ in 0..HEAVY {
        tasks.spawn(download(TcpStream::connect(process.web).await.unwrap(), Arc::clone(&full)));
    }
    until_full(moved, before).await;
    full.wait().await;
    all(tasks).await;
    memory.push(process.memory());
    println!(
        "{what}: {memory:?} KiB with {OTHERS} connections, and after {HEAVY} large heads, uploads and downloads"
    );
    for client in &mut others {
        assert_eq!(client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap().status, 200);
    }
}

async fn end(mut process: Process) {
    assert!(process.runs());
    process.signal("TERM");
    assert_eq!(process.end(Duration::from_secs(20)).0.code(), Some(0));
}

/// A router that may map so many MiB and no more: all that is written to and not shared counts, used or not, such as the stacks
/// of threads and what the allocator keeps in reserve for each, so that the number of threads is set.
async fn limited(config: &Path) -> Process {
    let limit = format!("export TOKIO_WORKER_THREADS=2; ulimit -d {} || exit 9", MAPPED * 1024);
    Process::start_limited(&limit, config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_fits_into_a_limit_of_what_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let (pod, _) = pod().await;
    let process = limited(&write_config(folder.path(), pod)).await;
    crowds(&process, &format!("{MAPPED} MiB mapped")).await;
    end(process).await;
}

/// A memory cgroup for a child, beneath or beside the one that this process is in. It is removed when this is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// One with so much memory; or why there can be none.
    fn new(bytes: usize) -> Result<Self, String> {
        let own =
            fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
        let of = |begin: &str| {
            own.lines().find_map(|line| line.split_once(begin).map(|(_, path)| path.to_owned()))
        };
        let (parent, limit) = match (of(":memory:/"), of("0::/")) {
            (Some(path), _) => (Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"),
            (None, Some(path)) => {
                // Where there are processes there can be no groups with limits beneath (version 2): so beside.
                let own = Path::new("/sys/fs/cgroup").join(&path);
                let parent = if path.is_empty() { own.as_path() } else { own.parent().unwrap() };
                (parent.to_owned(), "memory.max")
            }
            (None, None) => return Err("there are no cgroups".to_owned()),
        };
        if parent.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(format!("{} is outside", parent.display()));
        }
        let group = parent.join(format!("serinus-test-{}", std::process::id()));
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let group = Self(group);
        let kills = ["memory.oom_control", "memory.events"];
        // An ordinary folder has none of them.
        let is_there = |name: &&str| group.0.join(name).exists();
        if !["cgroup.procs", limit].iter().all(is_there) || !kills.iter().any(is_there) {
            return Err(format!("{} is no memory cgroup", group.0.display()));
        }
        for (file, value) in [(limit, bytes.to_string()), ("memory.swap.max", "0".to_owned())] {
            let file = group.0.join(file);
            let written = fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut f| f.write_all(value.as_bytes()));
            if let Err(error) = written
                && file.ends_with(limit)
            {
                return Err(format!("{}: {error}", file.display()));
            }
        }
        let enter = format!("echo $$ > '{}'", group.0.join("cgroup.procs").display());
        match std::process::Command::new("sh").args(["-c", &enter]).status() {
            Ok(status) if status.success() => Ok(group),
            _ => Err(format!("{}: no process may be moved there", group.0.display())),
        }
    }

    fn read(&self, names: &[&str]) -> String {
        let found = names.iter().find_map(|name| fs::read_to_string(self.0.join(name)).ok());
        found.unwrap_or_else(|| panic!("none of {names:?} in {}", self.0.display()))
    }

    /// How often a process of it was killed for want of memory.
    fn kills(&self) -> u64 {
        let text = self.read(&["memory.oom_control", "memory.events"]);
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("a count of kills").trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What was in it has ended, and may still be about to leave.
        for _ in 0..400 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} could not be removed", self.0.display());
    }
}

/// A router in a group, which does something, and ends without having been killed.
async fn inside(group: &MemoryGroup, config: &Path, does: impl AsyncFnOnce(&Process, &str)) {
    let enter = format!("echo $$ > '{}' || exit 9", group.0.join("cgroup.procs").display());
    let process = Process::start_limited(&enter, config).await;
    assert_eq!(group.read(&["cgroup.procs"]).trim(), process.id().to_string(), "it is in the group");
    let what = format!("{MEMORY} MiB in all");
    does(&process, &what).await;
    end(process).await;
    // Version 2 has it since Linux 5.19.
    let peak = ["memory.max_usage_in_bytes", "memory.peak"]
        .iter()
        .find_map(|name| fs::read_to_string(group.0.join(name)).ok());
    if let Some(peak) = peak.and_then(|peak| peak.trim().parse::<usize>().ok()) {
        println!("{what}: {} KiB at most so far, with what the kernel holds for it", peak / 1024);
    }
    assert_eq!(group.kills(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_and_large_requests_fit_into_64_mib() {
    let folder = tempfile::tempdir().unwrap();
    let (pod, moved) = pod().await;
    let config = write_config(folder.path(), pod);
    let group = match MemoryGroup::new(MEMORY * MIB) {
        Ok(group) => group,
        Err(why) => {
            // Not by `eprintln!`, which a test that passes keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: the {MEMORY} MiB, for no memory cgroup can be made here ({why}). In its place: a limit of \
                 {MAPPED} MiB of what is mapped"
            );
            let process = limited(&config).await;
            large_requests(&process, &moved, &format!("{MAPPED} MiB mapped")).await;
            return end(process).await;
        }
    };
    inside(&group, &config, crowds).await;
    inside(&group, &config, async |process: &Process, what: &str| {
        large_requests(process, &moved, what).await;
    })
    .await;
    let path = group.0.clone();
    drop(group);
    assert!(!path.exists(), "{} is left", path.display());
}
