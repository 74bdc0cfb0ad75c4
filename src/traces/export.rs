//! The thread that sends spans to the collector.

use std::fmt;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use futures::future::BoxFuture;
use http::{Request, Response};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use ureq::Agent;
use url::Url;

use crate::outbound;
use crate::telemetry::Telemetry;

use super::spans;
use super::trace::Ended;

/// How often the queue is looked into. Nobody wakes the thread, so that a request has no call of the system for its trace.
const PAUSE: Duration = Duration::from_millis(200);
/// The same while there is much to send: the queue must not fill meanwhile.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// How many spans are sent at once, and some more where one request has several.
const BATCH: usize = 512;
/// How long sending may take, repetitions included (the exporter's own are three, 0.1 to 1.6 s apart).
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last ones may take.
const LAST: Duration = Duration::from_millis(1_500);
/// How much of a collector's answer is read, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The thread, as who started it has it.
#[derive(Debug)]
pub(super) struct Exporting {
    stop: Arc<AtomicBool>,
    thread: Thread,
    ended: Mutex<Receiver<()>>,
}

impl Exporting {
    /// Starts it.
    pub(super) fn start(
        endpoint: &str,
        queue: Arc<ArrayQueue<Ended>>,
        telemetry: Arc<Telemetry>,
    ) -> io::Result<Self> {
        let invalid = |error: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("`tracing.endpoint`: {error}"))
        };
        let url: Url = endpoint.parse().map_err(|error| invalid(&error))?;
        let client = Arc::new(Client::new(url.clone()));
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_shared_http_client(Arc::clone(&client) as Arc<dyn HttpClient>)
            .with_endpoint(endpoint)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| invalid(&error))?;
        exporter.set_resource(&resource());
        let shown = url.origin().ascii_serialization();
        tracing::info!(collector = shown, "requests are traced");
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, ended) = mpsc::channel();
        let sending = Sending { exporter, client, shown, queue, telemetry, failing: false };
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new().name("traces".to_owned()).spawn(move || {
            sending.run(&stopping);
            let _ = tell.send(());
        })?;
        Ok(Self { stop, thread: thread.thread().clone(), ended: Mutex::new(ended) })
    }

    /// Has what waits sent, in the time there is.
    pub(super) fn finish(&self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST);
    }
}

/// Who sends: `serinus`, of this host, and beyond that what the environment says (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`).
fn resource() -> Resource {
    let host = hostname::get().unwrap_or_default().to_string_lossy().into_owned();
    let mut resource = Resource::builder_empty()
        .with_service_name("serinus")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", host))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()) {
        resource = resource.with_service_name(name);
    }
    resource.build()
}

struct Sending {
    exporter: SpanExporter,
    client: Arc<Client>,
    /// The collector, as people are told of it.
    shown: String,
    queue: Arc<ArrayQueue<Ended>>,
    telemetry: Arc<Telemetry>,
    /// The last batch did not arrive, which has been told.
    failing: bool,
}

impl Sending {
    fn run(mut self, stop: &AtomicBool) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            return self.telemetry.traces_failed(&self.shown, "there is no runtime for sending them");
        };
        let scope = InstrumentationScope::builder("serinus").with_version(env!("CARGO_PKG_VERSION")).build();
        loop {
            // Looked at first: what was there when it was said is sent.
            let last = stop.load(Ordering::Acquire);
            let mut pause = PAUSE;
            loop {
                let batch = self.batch(&scope);
                let count = batch.len();
                if count == 0 {
                    break;
                }
                if count >= BATCH {
                    pause = SHORT_PAUSE;
                }
                match runtime.block_on(self.exporter.export(batch)) {
                    Ok(()) => self.arrived(count as u64),
                    Err(error) => self.lost(count as u64, &error),
                }
            }
            if last {
                return;
            }
            thread::park_timeout(pause);
        }
    }

    /// Spans of what waits.
    fn batch(&self, scope: &InstrumentationScope) -> Vec<SpanData> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(ended) = self.queue.pop()
        {
            batch.extend(spans::of(&ended, scope));
        }
        batch
    }

    fn arrived(&mut self, spans: u64) {
        self.telemetry.spans_sent(spans);
        if std::mem::take(&mut self.failing) {
            self.telemetry.traces_recovered(&self.shown);
        }
    }

    fn lost(&mut self, spans: u64, error: &dyn fmt::Display) {
        self.telemetry.spans_lost(spans);
        if !std::mem::replace(&mut self.failing, true) {
            // The exporter says of a connection that there is none, and no more.
            let why = self.client.last_error().unwrap_or_else(|| error.to_string());
            self.telemetry.traces_failed(&self.shown, &why);
        }
    }
}

/// Sends what the exporter has made.
#[derive(Debug)]
struct Client {
    url: Url,
    /// The agent in use, and what was wrong with the last call: for one thread.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    agent: Option<Agent>,
    error: Option<String>,
}

impl Client {
    fn new(url: Url) -> Self {
        Self { url, state: Mutex::default() }
    }

    /// What was wrong with the last call, where no answer came.
    fn last_error(&self) -> Option<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.error = None;
        let agent = match state.agent.take() {
            Some(agent) => agent,
            None => {
                outbound::agent(&self.url, PATIENCE).inspect_err(|error| state.error = Some(error.clone()))?
            }
        };
        let (parts, body) = request.into_parts();
        let answered = agent.run(Request::from_parts(parts, &body[..])).and_then(|answer| {
            let (parts, body) = answer.into_parts();
            let mut read = Vec::new();
            // What is longer is left, and its connection with it: the status has come, and counts.
            body.into_reader().take(LONGEST_ANSWER).read_to_end(&mut read)?;
            Ok(Response::from_parts(parts, Bytes::from(read)))
        });
        match answered {
            Ok(answer) => {
                state.agent = Some(agent);
                Ok(answer)
            }
            Err(error) => {
                // The next one has an agent of its own, and with it the authorities as they are then.
                state.error = Some(error.to_string());
                Err(error.into())
            }
        }
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
        Self: 'b,
    {
        // The thread has nothing else to do.
        Box::pin(async move { self.call(request) })
    }
}
