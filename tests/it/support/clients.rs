//! Clients that send GETs and POSTs with ids of their own, never send one twice, and keep account of each that failed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::eventually;
use super::http::Client;
use super::misbehaving::Ledger;

/// What clients send.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    /// How many connections there are at once.
    pub(crate) clients: usize,
    /// Every how many-th request is a POST; 0 for none.
    pub(crate) post_every: u64,
    /// How long the body of a POST is.
    pub(crate) body: usize,
    /// How many requests there are; `u64::MAX` for as many as there is time for.
    pub(crate) requests: u64,
    /// How long a client waits between two requests.
    pub(crate) pause: Duration,
}

impl Plan {
    /// Eight clients, every fourth request a POST of 100 bytes.
    pub(crate) fn new(address: SocketAddr, requests: u64) -> Self {
        let host = "lab.example.com".to_owned();
        Self { address, host, clients: 8, post_every: 4, body: 100, requests, pause: Duration::ZERO }
    }
}

/// A request that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) id: String,
    pub(crate) why: String,
    /// When, since the clients began.
    pub(crate) at: Duration,
}

/// What came of the requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) gets: u64,
    pub(crate) posts: u64,
    pub(crate) failed_gets: Vec<Failed>,
    /// Those that came to a pod, at least in part.
    pub(crate) failed_sent_posts: Vec<Failed>,
    /// Those that no pod ever saw.
    pub(crate) failed_unseen_posts: Vec<Failed>,
    /// POSTs that came to the pods more than once.
    pub(crate) repeated_posts: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Outcome {
    pub(crate) fn requests(&self) -> u64 {
        self.gets + self.posts
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed_gets.len() + self.failed_sent_posts.len() + self.failed_unseen_posts.len()
    }
}

/// Running clients.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    ledger: Arc<Ledger>,
}

struct Shared {
    plan: Plan,
    begun: Instant,
    done: AtomicBool,
    /// How many have begun.
    next: AtomicU64,
    /// How many have ended.
    ended: AtomicU64,
    outcome: Mutex<Outcome>,
}

impl Clients {
    pub(crate) fn start(plan: Plan, ledger: &Arc<Ledger>) -> Self {
        let clients = plan.clients;
        let shared = Arc::new(Shared {
            plan,
            begun: Instant::now(),
            done: AtomicBool::new(false),
            next: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            outcome: Mutex::default(),
        });
        let tasks = (0..clients).map(|_| tokio::spawn(client(Arc::clone(&shared)))).collect();
        Self { shared, tasks, ledger: Arc::clone(ledger) }
    }

    /// How many requests have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// How many requests have failed so far.
    pub(crate) fn failed(&self) -> usize {
        self.shared.outcome.lock().unwrap().failed()
    }

    /// Whether every request has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// Waits until so many more have ended, or all have.
    pub(crate) async fn more(&self, more: u64) {
        let wanted = self.ended() + more;
        eventually("requests end", || (self.ended() >= wanted || self.is_finished()).then_some(())).await;
    }

    /// Waits for the last of the planned requests.
    pub(crate) async fn finish(self) -> Outcome {
        for task in self.tasks {
            task.await.unwrap();
        }
        let mut outcome = std::mem::take(&mut *self.shared.outcome.lock().unwrap());
        let unseen = std::mem::take(&mut outcome.failed_unseen_posts);
        let (seen, unseen) = unseen.into_iter().partition(|failed| self.ledger.seen(&failed.id).times > 0);
        (outcome.failed_sent_posts, outcome.failed_unseen_posts) = (seen, unseen);
        outcome.repeated_posts =
            self.ledger.repeated().into_iter().filter(|id| id.starts_with("POST")).collect();
        outcome
    }

    /// Ends after the requests under way.
    pub(crate) async fn stop(self) -> Outcome {
        self.shared.done.store(true, Ordering::Relaxed);
        self.finish().await
    }
}

async fn client(shared: Arc<Shared>) {
    // Ids differ between the runs of one ledger.
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let Plan { address, host, post_every, body, requests, pause, .. } = &shared.plan;
    let mut client = Client::new(*address);
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= *requests || shared.done.load(Ordering::Relaxed) {
            return;
        }
        let post = *post_every > 0 && number % post_every == post_every - 1;
        let method = if post { "POST" } else { "GET" };
        let id = format!("{method}-{run}-{number}");
        let mut request = format!("{method} /{id} HTTP/1.1\r\nHost: {host}\r\nX-Test-Id: {id}\r\n");
        if post {
            request.push_str(&format!("Content-Length: {body}\r\n\r\n{}", "x".repeat(*body)));
        } else {
            request.push_str("\r\n");
        }
        let begun = Instant::now();
        let answer = client.once(request.as_bytes()).await;
        let why = match answer {
            Ok(answer) if answer.status == 200 && answer.body == id => None,
            Ok(answer) if answer.status == 200 => Some(format!("the answer of another: {:?}", answer.body)),
            Ok(answer) => Some(format!("{} {}", answer.status, answer.header("x-serinus-reason"))),
            Err(error) => Some(error),
        };
        shared.note(post, id, why, begun.elapsed());
        if !pause.is_zero() {
            tokio::time::sleep(*pause).await;
        }
    }
}

impl Shared {
    fn note(&self, post: bool, id: String, why: Option<String>, took: Duration) {
        let mut outcome = self.outcome.lock().unwrap();
        outcome.slowest = outcome.slowest.max(took);
        if post {
            outcome.posts += 1;
        } else {
            outcome.gets += 1;
        }
        if let Some(why) = why {
            let failed = Failed { id, why, at: self.begun.elapsed() };
            // Which POSTs came to a pod is told apart at the end.
            if post { outcome.failed_unseen_posts.push(failed) } else { outcome.failed_gets.push(failed) }
        }
        drop(outcome);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The sum of a counter's samples.
pub(crate) fn sum(metrics: &str, name: &str) -> u64 {
    let samples =
        metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
