//! Why a command did not do what it was asked, and the exit status that says so.

use std::io;

/// Why a command did not do what it was asked: in a line or two for a person, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was asked wrongly: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// It was refused, or failed: exit status 1.
    #[error("{0}")]
    Failed(String),
    /// The router cannot be reached just now: exit status 1.
    #[error("{0}")]
    Unreachable(String),
    /// The output cannot be written: exit status 1.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit status that goes with it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) | Self::Unreachable(_) | Self::Output(_) => 1,
        }
    }
}

/// A reader that has read enough (`| head`) is no error.
pub(super) fn reader_may_leave(result: Result<(), CliError>) -> Result<(), CliError> {
    match result {
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
