//! The end that somebody asks for: by Ctrl-C, or by SIGTERM.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on Ctrl-C and SIGTERM only make [`stopped`] true: whoever works looks, and ends what it started.
pub(crate) fn on_signals() -> io::Result<()> {
    let flag = STOPPED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether somebody wants this to end.
pub(crate) fn stopped() -> bool {
    STOPPED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Fails once somebody wants this to end.
pub(crate) fn go_on() -> anyhow::Result<()> {
    anyhow::ensure!(!stopped(), "stopped by a signal");
    Ok(())
}
