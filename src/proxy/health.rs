//! Pods are asked whether they are well (`healthCheck`; semantics §2.5).
//!
//! ```text
//! table ─ every 100 ms, if it changed ─> the endpoints that are to be checked ─> a task each ─ GET ─> Standing
//! ```
//!
//! An endpoint that is ready counts as healthy until it has failed often enough, for its readiness probe has said so; it is
//! asked at once and then once in an interval. Those draining or unready are not asked. HTTP/2 endpoints are only connected
//! to, for now.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::model::{
    EndpointPhase, Generation, HealthCheck, Protocol, RouteName, ServiceKey, SetAsideReason, VersionName,
};
use crate::routing::tally::Tally;
use crate::routing::{Endpoint, Route, RoutingTable, Standing};
use crate::telemetry::{EndpointNote, Telemetry};
use crate::wire::{ResponseHead, parse};

use super::Published;

/// How often the table is looked at for endpoints that came or went.
const LOOK: Duration = Duration::from_millis(100);
/// How many endpoints are asked at once.
const AT_ONCE: usize = 128;
/// The longest time over which the first questions to many new endpoints are spread.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// The longest head of an answer.
const HEAD: usize = 16 * 1024;
/// How much of its body is read, and for how long, so that the application need not see its connection reset.
const BODY: u64 = 16 * 1024;
const BODY_TIME: Duration = Duration::from_millis(100);

/// What bytes go to and come from.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection for a check.
pub type Connected = Box<dyn Stream>;

/// Connects to endpoints, TLS included where they have it.
pub trait Connector: Send + Sync + 'static {
    /// A connection to `address`, which is the endpoint's own but for the port.
    fn connect(
        &self,
        endpoint: Arc<Endpoint>,
        address: SocketAddr,
    ) -> BoxFuture<'static, io::Result<Connected>>;
}

/// Checks the endpoints of every route that has a `healthCheck`, as the table tells, for ever; tells with `changed` of what
/// Services there is news.
pub async fn check_health<C, F>(table: Published, connector: Arc<C>, telemetry: Arc<Telemetry>, changed: F)
where
    C: Connector,
    F: Fn(&[ServiceKey]) + Clone + Send + Sync + 'static,
{
    let mut checks = Checks { running: HashMap::new(), permits: Arc::new(Semaphore::new(AT_ONCE)) };
    let mut seen = None::<Generation>;
    loop {
        let now = table.load_full();
        if seen.replace(now.generation()) != Some(now.generation()) {
            let run =
                |check: Check| check.run(Arc::clone(&connector), Arc::clone(&telemetry), changed.clone());
            checks.follow(&now, run).await.iter().for_each(|services| changed(services));
        }
        drop(now);
        tokio::time::sleep(LOOK).await;
    }
}

/// The checks that run.
struct Checks {
    /// By the address of the standing in memory, which it keeps alive.
    running: HashMap<usize, Running>,
    permits: Arc<Semaphore>,
}

/// A check that runs until it is ended, or dropped.
struct Running {
    settings: HealthCheck,
    standing: Arc<Standing>,
    services: Arc<[ServiceKey]>,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it. Its Services when there is news of them: the endpoint counts as healthy again, for nobody would find out.
    async fn end(mut self) -> Option<Arc<[ServiceKey]>> {
        self.task.abort();
        // Waited for, so that it has the last word no more.
        let _ = (&mut self.task).await;
        self.standing.set_unhealthy(false).then(|| Arc::clone(&self.services))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    /// Starts the checks that the table wants and that do not run, and ends the others; those of which there is news by that.
    async fn follow<T>(
        &mut self,
        table: &RoutingTable,
        mut run: impl FnMut(Check) -> T,
    ) -> Vec<Arc<[ServiceKey]>>
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let permits = Arc::clone(&self.permits);
        let (mut wanted, mut news) = (HashSet::new(), Vec::new());
        for check in table.routes().iter().flat_map(|route| wanted_of(route, &permits)) {
            let key = Arc::as_ptr(&check.standing).addr();
            wanted.insert(key);
            match self.running.remove(&key) {
                Some(running) if running.settings == check.settings => {
                    self.running.insert(key, running);
                    continue;
                }
                Some(other) => news.extend(other.end().await),
                None => {}
            }
            let (settings, standing) = (check.settings.clone(), Arc::clone(&check.standing));
            let services = Arc::clone(&check.services);
            let task = tokio::spawn(run(check));
            self.running.insert(key, Running { settings, standing, services, task });
        }
        let unwanted: Vec<_> = self.running.extract_if(|key, _| !wanted.contains(key)).collect();
        for (_, running) in unwanted {
            news.extend(running.end().await);
        }
        news
    }
}

/// The checks that a route wants.
fn wanted_of(route: &Route, permits: &Arc<Semaphore>) -> Vec<Check> {
    let Some(settings) = &route.spec.traffic.health_check else { return Vec::new() };
    let services: Arc<[ServiceKey]> = route.spec.services().cloned().collect();
    let members = route.versions.iter().flat_map(|v| v.members.iter().map(move |m| (v, m)));
    members
        .filter(|(_, member)| member.phase == EndpointPhase::Ready)
        .map(|(version, member)| Check {
            settings: settings.clone(),
            standing: Arc::clone(&member.standing),
            tally: Arc::clone(&version.tally),
            route: route.name().clone(),
            version: version.name.clone(),
            services: Arc::clone(&services),
            permits: Arc::clone(permits),
        })
        .collect()
}

/// The check of one endpoint for one route.
struct Check {
    settings: HealthCheck,
    standing: Arc<Standing>,
    tally: Arc<Tally>,
    route: RouteName,
    version: VersionName,
    services: Arc<[ServiceKey]>,
    permits: Arc<Semaphore>,
}

impl Check {
    async fn run<C: Connector, F: Fn(&[ServiceKey])>(
        self,
        connector: Arc<C>,
        telemetry: Arc<Telemetry>,
        changed: F,
    ) {
        // Spread, and each interval a tenth longer or shorter, so that the questions do not all come at once.
        let mut wait = FIRST_WITHIN.min(self.settings.interval).mul_f64(fastrand::f64());
        // Answers in a row that say other than what is held of it.
        let mut contrary = 0;
        loop {
            tokio::time::sleep(wait).await;
            wait = self.settings.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            let well = {
                // Never closed, so that this never fails.
                let Ok(_permit) = self.permits.acquire().await else { return };
                self.ask(&*connector).await
            };
            let unhealthy = self.standing.is_unhealthy();
            if well != unhealthy {
                contrary = 0;
                continue;
            }
            contrary += 1;
            if contrary >= if unhealthy { self.settings.healthy } else { self.settings.unhealthy } {
                contrary = 0;
                if self.standing.set_unhealthy(!unhealthy) {
                    self.tell(&telemetry);
                    changed(&self.services);
                }
            }
        }
    }

    fn tell(&self, telemetry: &Telemetry) {
        let note = EndpointNote {
            route: &self.route,
            version: &self.version,
            endpoint: &self.standing.endpoint().id,
            reason: SetAsideReason::HealthCheck,
        };
        if self.standing.is_unhealthy() {
            self.tally.set_aside(note.reason);
            telemetry.endpoint_set_aside(note, None);
        } else {
            telemetry.endpoint_taken_back(note);
        }
    }

    /// Whether it answers well, in time.
    async fn ask<C: Connector>(&self, connector: &C) -> bool {
        let endpoint = self.standing.endpoint();
        let mut address = endpoint.id.address;
        address.set_port(self.settings.port.unwrap_or(address.port()));
        let exchange = async {
            let connected = connector.connect(Arc::clone(endpoint), address).await?;
            match endpoint.protocol {
                Protocol::Http1 => {
                    let host = self.settings.host.clone().unwrap_or_else(|| address.to_string());
                    status(connected, &self.settings.path, &host).await
                }
                Protocol::H2c => Ok(200),
            }
        };
        matches!(timeout(self.settings.timeout, exchange).await, Ok(Ok(200..400)))
    }
}

/// Asks with GET, and returns the status of the answer.
async fn status(mut stream: Box<dyn Stream>, path: &str, host: &str) -> io::Result<u16> {
    let agent = concat!("serinus-health/", env!("CARGO_PKG_VERSION"));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::with_capacity(1024);
    let status = loop {
        if let Some((status, length)) = parse(&head)? {
            // Interim answers come before the one that counts (RFC 9110 §15.2).
            if status >= 200 {
                break status;
            }
            head.drain(..length);
            continue;
        }
        if head.len() >= HEAD {
            return Err(invalid("the head of the answer is too long"));
        }
        let room = (HEAD - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let mut rest = (&mut stream).take(BODY);
    let _ = timeout(BODY_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(status)
}

/// The status of the answer that begins here and the length of its head; nothing while that is not whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut head = ResponseHead::default();
    match parse::response(bytes, &Method::GET, "", &mut head) {
        Ok(parsed) => Ok(parsed.map(|parsed| (head.status.as_u16(), parsed.consumed))),
        Err(refused) => Err(invalid(refused.what)),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
