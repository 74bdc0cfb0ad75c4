//! `serinus status --watch` on a terminal: the screen is taken, kept up to date, and given back, however it ends.
//!
//! A thread of its own asks the router, so that keys are heard while an answer is waited for.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::admin::wire::{RouteList, RouteStatus};

use super::client::{Client, route_path};
use super::error::CliError;
use super::live_screen::{Screen, key};
use super::run::Signals;
use super::status::{OutputForm, PERIOD, StatusArgs};

/// How long keys are waited for before it is looked whether there is news. Nobody sees a tenth of a second.
const LOOK: Duration = Duration::from_millis(100);

/// What is told to the screen.
enum News {
    Answer(Box<Result<RouteList, CliError>>),
    /// A signal says that it is over.
    End,
}

/// Whether somebody sits before a terminal and wants to see it there.
pub(super) fn is_wanted(args: &StatusArgs) -> bool {
    args.watch && args.output == OutputForm::Table && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows the status on the terminal until somebody leaves.
///
/// # Errors
/// When the router cannot be reached at first, later for a reason that waiting cannot cure, or when there is no terminal.
pub(super) fn watch(args: &StatusArgs) -> Result<(), CliError> {
    // Before the screen is taken: what is wrong with the command is said below it, and stays.
    let first = fetch(args)?;
    let (tell, news) = mpsc::sync_channel(2);
    listen_for_signals(tell.clone())?;
    let asked = args.clone();
    let asking = ask(move || fetch(&asked), tell)?;
    let mut screen = Screen::new(args.admin.admin.to_string(), args.route.is_some());
    screen.heard(first, Instant::now());
    let mut terminal = Terminal::take()?;
    // The terminal is given back before anything else is said.
    show(&mut terminal.0, &mut screen, &news, &asking)
}

fn show(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    news: &Receiver<News>,
    asking: &JoinHandle<()>,
) -> Result<(), CliError> {
    loop {
        // Looked at first: what it told before its end is there by then.
        let over = asking.is_finished();
        match news.try_recv() {
            Ok(News::Answer(answer)) => match *answer {
                Ok(list) => screen.heard(list, Instant::now()),
                Err(CliError::Unreachable(error)) => screen.heard_nothing(&error),
                Err(error) => return Err(error),
            },
            Ok(News::End) => return Ok(()),
            Err(TryRecvError::Empty) if !over => {}
            // By a panic, which has given the terminal back already.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                return Err(CliError::Failed(
                    "nobody asks the router any more: a fault of Serinus".to_owned(),
                ));
            }
        }
        terminal.draw(|frame| screen.draw(frame, Instant::now()))?;
        if event::poll(LOOK)?
            && let Event::Key(pressed) = event::read()?
            && pressed.kind != KeyEventKind::Release
            && screen.press(key(pressed)).is_break()
        {
            return Ok(());
        }
    }
}

/// What the router says now. The token file is read anew each time, so that a rotated one does not end the watch.
fn fetch(args: &StatusArgs) -> Result<RouteList, CliError> {
    let client = Client::new(&args.admin)?;
    match &args.route {
        None => client.get("/api/v1/routes"),
        Some(route) => {
            let route: RouteStatus = client.get(&route_path(route))?;
            Ok(RouteList { generation: 0, problems: Vec::new(), replicas: Vec::new(), routes: vec![route] })
        }
    }
}

/// Asks again and again, until nobody listens.
fn ask(
    fetch: impl Fn() -> Result<RouteList, CliError> + Send + 'static,
    tell: SyncSender<News>,
) -> Result<JoinHandle<()>, CliError> {
    let asking = move || {
        loop {
            thread::sleep(PERIOD);
            if tell.send(News::Answer(Box::new(fetch()))).is_err() {
                return;
            }
        }
    };
    started(thread::Builder::new().name("ask".to_owned()).spawn(asking))
}

/// SIGTERM would end the process with the terminal as it is.
fn listen_for_signals(tell: SyncSender<News>) -> Result<(), CliError> {
    let listening = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            if let Ok(mut signals) = Signals::new() {
                signals.next().await;
                let _ = tell.send(News::End);
            }
        });
    };
    started(thread::Builder::new().name("signals".to_owned()).spawn(listening)).map(drop)
}

fn started(thread: io::Result<JoinHandle<()>>) -> Result<JoinHandle<()>, CliError> {
    thread.map_err(|error| CliError::Failed(format!("a thread cannot be started: {error}")))
}

/// The terminal, with a screen of its own, and keys that come as they are pressed. Given back at the end; by a panic too, which
/// `ratatui` sees to before its message is written.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn take() -> Result<Self, CliError> {
        ratatui::try_init().map(Self).map_err(|error| {
            let _ = ratatui::try_restore();
            CliError::Failed(format!(
                "the terminal cannot be used: {error}\nwithout one, `serinus status --watch | cat` writes plain text"
            ))
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Who has taken the terminal away has it.
        let _ = ratatui::try_restore();
    }
}

#[cfg(test)]
#[path = "live_panic_tests.rs"]
mod tests;
