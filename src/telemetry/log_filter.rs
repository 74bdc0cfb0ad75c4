//! Which lines the log has, and how that is changed while the router runs.

use std::str::FromStr as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, Registry};

/// The most characters of what is asked for.
const LONGEST: usize = 1_000;
/// The most parts of it.
const MOST: usize = 50;

/// That of the process: it has one log, as it has one stderr.
static IN_FORCE: OnceLock<InForce> = OnceLock::new();

struct InForce {
    handle: Handle<EnvFilter, Registry>,
    /// What it began with.
    start: String,
    /// What was asked for since.
    asked: Mutex<Option<String>>,
}

/// Which lines the log has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// What it began with, as `RUST_LOG` has it.
    pub start: String,
    /// What was asked for while it runs, and holds beside that, and before it where both name the same.
    pub asked: Option<String>,
}

/// This process's log is not one that was begun here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is not one that Serinus began, and is changed where it was begun")]
pub struct NotOurLog;

/// Levels of log lines, each for a part of the program or for all: `debug`, `serinus::proxy=debug`, with commas between.
///
/// The language of `RUST_LOG` without spans and fields: to compare those costs each line what nobody sees beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels(String);

impl Levels {
    /// Reads them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let length = text.chars().count();
        if length > LONGEST {
            return Err(vec![format!("it has {length} characters, and {LONGEST} are read: shorten it")]);
        }
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > MOST {
            return Err(vec![format!("it has {} parts, and {MOST} are read: leave some out", parts.len())]);
        }
        if parts.is_empty() {
            return Err(vec![
                "it is empty: write a level, or TARGET=LEVEL, like `serinus::proxy=debug`".to_owned(),
            ]);
        }
        let errors: Vec<String> = parts.iter().filter_map(|part| fault(part)).collect();
        if errors.is_empty() { Ok(Self(parts.join(","))) } else { Err(errors) }
    }
}

/// What is wrong with a part.
fn fault(part: &str) -> Option<String> {
    let levels = "`off`, `error`, `warn`, `info`, `debug` or `trace`";
    let (target, level) = match part.split_once('=') {
        Some((target, level)) => (Some(target.trim()), level.trim()),
        None => (None, part),
    };
    if target.is_some_and(|target| !is_target(target)) {
        let target = target.unwrap_or_default();
        return Some(format!(
            "`{part}`: `{target}` is no part of a program: write one like `serinus::proxy`, without spans and fields"
        ));
    }
    // Numbers are levels too for `RUST_LOG`, and for hardly anyone who reads them.
    if level.starts_with(|c: char| c.is_ascii_alphabetic()) && LevelFilter::from_str(level).is_ok() {
        return None;
    }
    let advice =
        if target.is_none() { format!(", or TARGET=LEVEL like `{level}=debug`") } else { String::new() };
    Some(format!("`{part}`: `{level}` is no level: write {levels}{advice}"))
}

fn is_target(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-' | b'.'))
}

/// The filter that a log begins with: `RUST_LOG`, or `default` where that is not set or cannot be read. And what it is as text.
pub(super) fn start(default: &str) -> (EnvFilter, String) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let read = asked.and_then(|text| Some((EnvFilter::try_new(&text).ok()?, text)));
    read.unwrap_or_else(|| (EnvFilter::new(default), default.to_owned()))
}

/// A layer with this filter, and what [`keep`] wants once it is in use.
pub(super) fn changeable(
    filter: EnvFilter,
) -> (reload::Layer<EnvFilter, Registry>, Handle<EnvFilter, Registry>) {
    reload::Layer::new(filter)
}

/// From now on the log of this process can be changed.
pub(super) fn keep(handle: Handle<EnvFilter, Registry>, start: String) {
    let _ = IN_FORCE.set(InForce { handle, start, asked: Mutex::new(None) });
}

/// Which lines the log of this process has; nothing where it was not begun here.
#[must_use]
pub fn log_filter() -> Option<LogFilter> {
    let now = IN_FORCE.get()?;
    let asked = now.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Some(LogFilter { start: now.start.clone(), asked })
}

/// Changes which lines the log of this process has: those that it began with, and beside them these; `None` takes back what was asked
/// before. In force for the next line.
///
/// # Errors
/// Where the log was not begun here.
pub fn set_log_filter(levels: Option<&Levels>) -> Result<LogFilter, NotOurLog> {
    let now = IN_FORCE.get().ok_or(NotOurLog)?;
    let mut asked = now.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let filter = match levels {
        // Of two that name the same, the later one holds.
        Some(Levels(levels)) => EnvFilter::try_new(format!("{},{levels}", now.start)),
        None => EnvFilter::try_new(&now.start),
    };
    // What was read part by part is read as a whole, too.
    let filter = filter.map_err(|_| NotOurLog)?;
    now.handle.reload(filter).map_err(|_| NotOurLog)?;
    *asked = levels.map(|Levels(levels)| levels.clone());
    Ok(LogFilter { start: now.start.clone(), asked: asked.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_for_all_or_for_a_part() {
        for (text, read) in [
            ("debug", "debug"),
            (" serinus::proxy=debug , h2=WARN,", "serinus::proxy=debug,h2=WARN"),
            ("off", "off"),
            ("kube-client=trace", "kube-client=trace"),
        ] {
            assert_eq!(Levels::parse(text), Ok(Levels(read.to_owned())), "{text}");
            assert!(EnvFilter::try_new(read).is_ok(), "{read}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said() {
        let wrong = Levels::parse("serinus=loud,proxy,[span]=debug,x{y=\"z\"}=info,=info,debug").unwrap_err();
        assert_eq!(wrong.len(), 5, "{wrong:#?}");
        assert_eq!(
            wrong[0],
            "`serinus=loud`: `loud` is no level: write `off`, `error`, `warn`, `info`, `debug` or `trace`"
        );
        assert!(wrong[1].ends_with("or TARGET=LEVEL like `proxy=debug`"), "{}", wrong[1]);
        assert!(wrong[2].contains("`[span]` is no part of a program"), "{}", wrong[2]);
        for (text, needle) in [
            (" , ", "it is empty"),
            (&"a".repeat(1_001), "1001 characters"),
            (&"a=info,".repeat(51), "51 parts"),
            ("serinus=3", "`3` is no level"),
        ] {
            let wrong = Levels::parse(text).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].contains(needle), "{wrong:?}");
        }
    }

    /// Nobody else in this process asks for it: the log's filter is the process's own.
    #[test]
    fn a_log_that_was_not_begun_here_is_left_alone() {
        let levels = Levels::parse("debug").unwrap();
        assert_eq!((log_filter(), set_log_filter(Some(&levels))), (None, Err(NotOurLog)));
    }
}
