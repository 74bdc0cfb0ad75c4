//! What tests share.

pub(crate) mod apiserver;
pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod clients;
pub(crate) mod cluster;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod misbehaving;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod stack;
pub(crate) mod upstream;
pub(crate) mod watching;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take to come true. Far more than it ever needs, for slow and busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` gives something, and gives that; panics with `what` when it takes too long.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Lets this process, and those that it starts, have as many files open as it may: a crowd of clients needs more than the 1,024
/// that many systems begin with.
pub(crate) fn many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it may not, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
