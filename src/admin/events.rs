//! `GET /api/v1/events`: what happens, as server-sent events.
//!
//! A stream takes a place among the API's connections for as long as it lasts, so there are only so many of them, and none lasts
//! for ever. One that is read too slowly is told how much it missed: what waits for it is bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Item;

use super::api::Admin;
use super::handlers::{AnyRefusal, RouteRefusal};
use super::listener::Seat;
use super::problem::Refused;
use super::wire::{EventData, LaggedEvent, ProblemDetails};

/// How long a stream lasts: clients come back by themselves.
const LIFE: Duration = Duration::from_secs(3_600);
/// How long it is silent at most.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many streams there are at once, however many connections there may be.
const MOST: usize = 64;

/// The places for streams.
#[derive(Debug)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    /// The API ends.
    stop: CancellationToken,
}

impl Streams {
    /// Of an API with so many connections, of which a quarter may be streams; they end with `stop`.
    pub(super) fn new(connections: usize, stop: CancellationToken) -> Self {
        Self { free: Arc::new(Semaphore::new((connections / 4).clamp(1, MOST))), stop }
    }
}

/// Which events are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    route: Option<String>,
}

/// What happens from now on, as server-sent events: `weight`, `rollout`, `hook`, `endpoint`, `config` and `problem`, and `lagged`
/// for a client that reads too slowly. Open the stream first and read the routes then: nothing is missed between the two. The
/// `id` of an event is one more than that of the one before, those that are not sent to this stream included; a stream is not
/// taken up again where it broke off. It ends after an hour, and with the router.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    security((), ("token" = [])),
    params(("route" = Option<String>, Query, description = "Without the events of other routes.")),
    responses(
        (status = 200, description = "The events; this is the `data` of one.", body = EventData,
            content_type = "text/event-stream"),
        (status = 400, description = "Another query than `route`.", body = ProblemDetails,
            content_type = "application/problem+json"),
        AnyRefusal, RouteRefusal
    )
)]
pub(super) async fn get_events(
    State(admin): State<Arc<Admin>>,
    seat: Option<Extension<Arc<Seat>>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(wanted) = wanted.map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            "bad-query",
            format!("{}: `?route=NAME` is all there is", error.body_text()),
        )
    })?;
    if let Some(route) = &wanted.route {
        let table = admin.control.table().load();
        if table.route(route).is_none() {
            return Err(Refused::unknown_route(route, &table));
        }
    }
    let Ok(place) = Arc::clone(&admin.streams.free).try_acquire_owned() else {
        let detail = "there are as many streams of events as there may be: close one, or ask the routes from time to time";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", detail));
    };
    let seat = seat.map(|Extension(seat)| seat);
    seat.iter().for_each(|seat| seat.streaming.store(true, Ordering::Release));
    let reader = Reader {
        heard: admin.telemetry.listen(),
        wanted,
        stop: admin.streams.stop.clone(),
        end: Instant::now() + LIFE,
        seat,
        _place: place,
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events(reader)).keep_alive(keep_alive).into_response())
}

/// Who reads a stream.
struct Reader {
    heard: broadcast::Receiver<Arc<Item>>,
    wanted: Wanted,
    stop: CancellationToken,
    end: Instant,
    seat: Option<Arc<Seat>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.seat.iter().for_each(|seat| seat.streaming.store(false, Ordering::Release));
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let heard = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                heard = self.heard.recv() => heard,
            };
            match heard {
                Ok(item) if self.wants(&item) => {
                    let data = EventData::of(&item.news, item.time.to_string());
                    return Some(event(&data).id(item.id.to_string()));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return Some(event(&EventData::Lagged(LaggedEvent { missed })));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, item: &Item) -> bool {
        match (&self.wanted.route, item.news.route()) {
            (Some(wanted), Some(route)) => wanted == route.as_str(),
            (None, _) | (_, None) => true,
        }
    }
}

fn event(data: &EventData) -> Event {
    let event = Event::default().event(data.kind());
    // Texts and numbers: writing them cannot fail.
    event.json_data(data).unwrap_or_default()
}

/// The events, after a word that the stream is open.
fn events(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = Event::default().comment("the events follow");
    let rest = futures::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    futures::StreamExt::chain(futures::stream::iter([Ok(first)]), rest)
}
