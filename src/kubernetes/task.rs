//! The life of one watch: opened, followed, lost, tried again.

use std::pin::pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::model::{Namespace, Problem};

use super::access::Client;
use super::faults::{Fault, Place};
use super::kinds::{Names, Selection, Watched};
use super::known::Known;
use super::lenient::Lenient;
use super::link::{Backoff, observed};
use super::supervisor::{Links, WatchEvent};

/// Listing anew is the usual way out of `410 Gone` and the like; when it does not help this often, it is trouble.
const MOST_LOSSES: u32 = 4;

/// One watch.
pub(super) struct Task<W: Watched> {
    client: Client,
    place: Place,
    names: watch::Receiver<Names>,
    out: mpsc::Sender<WatchEvent>,
    links: Links,
    known: Known<W>,
    backoff: Backoff,
    /// When the watch was last opened, while it is open.
    open_since: Option<Instant>,
    /// It was open before.
    opened_before: bool,
    /// How often in a row it had to list anew before it was open.
    losses: u32,
    /// The trouble that was told last, until it is over.
    trouble: Option<Problem>,
    /// When the next attempt is due.
    due: Instant,
}

/// Why one watcher is at its end.
enum End {
    /// Another one has to be made.
    Again,
    /// Nobody listens any more.
    Closed,
}

type Item<W> = watcher::Result<watcher::Event<Lenient<<W as Watched>::Object>>>;

impl<W: Watched> Task<W> {
    pub(super) fn new(
        client: &Client,
        namespace: &Namespace,
        name: Option<&Arc<str>>,
        names: watch::Receiver<Names>,
        out: &mpsc::Sender<WatchEvent>,
        links: &Links,
    ) -> Self {
        let place = Place {
            namespace: namespace.clone(),
            kind: W::KIND,
            name: name.cloned(),
            origin: client.origin.clone(),
        };
        links.set(&place, false);
        Self {
            client: client.clone(),
            place,
            names,
            out: out.clone(),
            links: links.clone(),
            known: Known::new(namespace.clone()),
            backoff: Backoff::new(client.patience),
            open_since: None,
            opened_before: false,
            losses: 0,
            trouble: None,
            due: Instant::now(),
        }
    }

    /// Watches until nobody listens any more.
    pub(super) async fn run(mut self) {
        loop {
            let selection = W::selection(&self.names.borrow_and_update());
            self.known.select(selection.names.clone());
            let (client, opened) = observed(&self.client);
            let api: Api<Lenient<W::Object>> = Api::namespaced(client, &self.place.namespace);
            let stream = pin!(watcher(api, selection.config.clone()));
            let end = self.follow(stream, &opened, &selection).await;
            self.closed();
            if matches!(end, End::Closed) {
                return;
            }
        }
    }

    /// Follows one watcher as long as it is of use.
    async fn follow(
        &mut self,
        mut stream: impl Stream<Item = Item<W>> + Unpin,
        opened: &Notify,
        selection: &Selection,
    ) -> End {
        loop {
            let due = self.due;
            let next = async {
                // Not polling is how a watcher is held back.
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                stream.next().await
            };
            let told = tokio::select! {
                biased;
                () = self.out.closed() => return End::Closed,
                changed = self.names.changed() => match changed {
                    Err(_) => return End::Closed,
                    Ok(()) if W::selection(&self.names.borrow_and_update()) != *selection => return End::Again,
                    Ok(()) => Ok(()),
                },
                () = opened.notified() => self.opened().await,
                item = next => match item {
                    Some(Ok(event)) => self.event(event).await,
                    Some(Err(error)) => match self.failed(&error).await {
                        Ok(Next::Go) => Ok(()),
                        Ok(Next::Anew) => return End::Again,
                        Err(closed) => Err(closed),
                    },
                    None => return End::Again,
                },
            };
            if told.is_err() {
                return End::Closed;
            }
        }
    }

    async fn event(&mut self, event: watcher::Event<Lenient<W::Object>>) -> Result<(), Closed> {
        let news = self.known.fold(event);
        self.links.telemetry.watch_heard(W::KIND, news.heard);
        if let Some(objects) = news.listed {
            self.links.telemetry.watch_listed(&self.place.namespace, W::KIND, objects);
        }
        for change in news.changes {
            self.tell(change.into()).await?;
        }
        let before = self.known.told().to_vec();
        if let Some(problems) = self.known.problems() {
            for new in problems.iter().filter(|problem| !before.contains(problem)) {
                self.links.telemetry.object_refused(&self.place.namespace, W::KIND, &new.problem);
            }
            self.tell(W::objects(&self.place, problems)).await?;
        }
        Ok(())
    }

    /// The API server accepted the watch.
    async fn opened(&mut self) -> Result<(), Closed> {
        self.open_since = Some(Instant::now());
        self.losses = 0;
        self.links.set(&self.place, true);
        if !self.opened_before || self.trouble.is_some() {
            self.links.telemetry.watch_open(&self.place.namespace, W::KIND);
        }
        self.opened_before = true;
        if self.trouble.take().is_some() {
            self.tell(W::trouble(&self.place, None)).await?;
        }
        Ok(())
    }

    /// It is not open any more; the pauses start anew if it was for a while.
    fn closed(&mut self) {
        self.links.set(&self.place, false);
        let was_open = self.open_since.take().map(|since| since.elapsed());
        if was_open.is_some_and(|open| open >= self.client.patience.retry_most) {
            self.backoff.reset();
        }
    }

    async fn failed(&mut self, error: &watcher::Error) -> Result<Next, Closed> {
        self.closed();
        self.due = Instant::now() + self.backoff.pause();
        let Place { namespace, kind, .. } = &self.place;
        match self.place.fault(error) {
            Fault::Cut(reason) => {
                self.links.telemetry.watch_cut(namespace, *kind, &reason);
                Ok(Next::Go)
            }
            Fault::Lost(reason) => {
                self.links.telemetry.watch_cut(namespace, *kind, &reason);
                self.losses += 1;
                if self.losses >= MOST_LOSSES {
                    let problem = self.place.useless(&reason);
                    self.troubled(problem).await?;
                }
                // A watcher that is told 410 by the status of an answer would ask for the same again.
                Ok(Next::Anew)
            }
            Fault::Trouble(problem) => {
                self.troubled(problem).await?;
                Ok(Next::Go)
            }
        }
    }

    /// Tells of trouble once, until there is other trouble or none.
    async fn troubled(&mut self, problem: Problem) -> Result<(), Closed> {
        if self.trouble.as_ref() == Some(&problem) {
            return Ok(());
        }
        self.links.telemetry.watch_troubled(&self.place.namespace, W::KIND, &problem);
        self.trouble = Some(problem.clone());
        self.tell(W::trouble(&self.place, Some(problem))).await
    }

    /// Waits for room: a storm of events waits at the API server, not in memory.
    async fn tell(&self, event: WatchEvent) -> Result<(), Closed> {
        self.out.send(event).await.map_err(|_| Closed)
    }
}

/// What to do after an error.
enum Next {
    /// Go on with the watcher.
    Go,
    /// Make another watcher, which lists anew.
    Anew,
}

/// Nobody listens any more.
struct Closed;
