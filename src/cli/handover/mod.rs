//! Handing the listening sockets over: from a router that runs to a new process, with no connection refused or reset.
//!
//! ```text
//! new process                                   router that runs
//!     Hello ─────────────────────────────────────────>
//!     <───────────────── Offer, and a descriptor for each socket
//!     (binds what it was not offered, compiles its table, waits until it is ready)
//!     Ready ─────────────────────────────────────────>
//!     <───────────────── State: the weights and their history, frozen here from now on
//!     (takes the state, and begins to accept)
//!     Taken ─────────────────────────────────────────> stops accepting, drains
//!     <───────────────── Yours
//! ```
//!
//! The sockets' queues are shared, so that nothing is lost while both accept, or neither. Until `Taken` the router that runs
//! goes on as soon as anything is amiss, and says `GoOn` where somebody still listens; from then on the sockets and the state
//! are the new one's. A connection that ends without `GoOn` means that the process is gone, and the new one is the only one.

mod channel;
mod give;
mod take;

pub(super) use give::{GivenSocket, Giver};
pub(super) use take::{Handed, Taking};

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::state::SavedState;

use channel::Channel;

/// The number of the protocol: another one is refused by both sides.
const PROTOCOL: u32 = 1;
/// How long either side may take for what needs no waiting.
const PROMPTLY: Duration = Duration::from_secs(10);

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
enum FromNew {
    Hello {
        protocol: u32,
        pid: u32,
    },
    Ready,
    /// It accepts on the sockets of these listeners.
    Taken {
        listeners: Vec<String>,
    },
}

/// What the router that runs says.
#[derive(Debug, Serialize, Deserialize)]
enum FromOld {
    Offer { protocol: u32, pid: u32, sockets: Vec<Offered> },
    State(SavedState),
    Yours,
    GoOn { why: String },
}

/// A socket as it is offered; its descriptor comes after the offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Offered {
    role: Role,
    name: String,
    /// The address as the config has it.
    asked: String,
    /// Where it listens.
    address: SocketAddr,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Listener,
    Admin,
}

/// Where a router that runs and a new process meet: a Unix socket.
#[derive(Clone, Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// The place at `path`.
    ///
    /// # Errors
    /// When its directory is missing or anyone may write there, or something that is no socket has its name.
    pub(super) fn at(path: &Path) -> anyhow::Result<Self> {
        let place = Self(path.to_owned());
        let shown = path.display();
        if path.file_name().is_none() {
            bail!("--handover {shown} is not a path of a file: give one in a directory of Serinus' own");
        }
        let directory = place.directory();
        let found = fs::metadata(directory);
        let found = found.with_context(|| {
            format!("--handover {shown}: the directory {} cannot be used: make it first", directory.display())
        })?;
        if found.mode() & 0o002 != 0 {
            bail!(
                "--handover {shown}: everyone may write in {}, and could pass for the router that runs: use a directory \
                 that only Serinus' user may write in",
                directory.display()
            );
        }
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                bail!("--handover {shown} is there, and is not a socket: choose another path")
            }
            Ok(_) | Err(_) => Ok(place),
        }
    }

    /// The router that runs, if there is one.
    ///
    /// # Errors
    /// When it cannot be spoken to.
    pub(super) async fn running(&self) -> anyhow::Result<Option<Taking>> {
        match UnixStream::connect(&self.0).await {
            Ok(stream) => Ok(Some(Taking::begin(Channel::new(stream)?).await.with_context(|| {
                format!("the router that listens on {} hands nothing over", self.0.display())
            })?)),
            // None, or one that was killed: its socket is replaced.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| {
                format!("--handover {}: whether a router runs cannot be told", self.0.display())
            }),
        }
    }

    /// Waits here for a new process from now on, in place of whoever did before.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(super) fn bind(&self) -> anyhow::Result<Meeting> {
        let mut beside = self.0.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // Of an earlier process with the same number.
        let _ = fs::remove_file(&beside);
        let make = || -> std::io::Result<Meeting> {
            let listener = UnixListener::bind(&beside)?;
            // Whoever connects before this is looked at as well: `Channel::new` asks the kernel who it is.
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
            let made = fs::symlink_metadata(&beside)?;
            fs::rename(&beside, &self.0)?;
            Ok(Meeting { listener, path: self.0.clone(), id: Some((made.dev(), made.ino())) })
        };
        make().inspect_err(|_| drop(fs::remove_file(&beside))).with_context(|| {
            format!(
                "--handover {}: the socket cannot be made: check the directory's rights, and that the path has fewer than \
                 90 characters",
                self.0.display()
            )
        })
    }

    fn directory(&self) -> &Path {
        match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

/// The socket that new processes come to. It goes away with its owner, unless somebody else has its path by then.
#[derive(Debug)]
pub(super) struct Meeting {
    listener: UnixListener,
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl Meeting {
    /// The path is another process's from now on.
    fn leave_the_path(&mut self) {
        self.id = None;
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        if self.id.is_some() && there == self.id {
            // Nobody is hurt by one that stays: it is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        Place::at(path).unwrap_err().to_string()
    }

    #[test]
    fn a_place_where_others_could_pass_for_the_router_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        assert!(Place::at(&path).is_ok());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(refused(&path).contains("everyone may write in"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, "").unwrap();
        assert!(refused(&path).contains("is not a socket"));
        assert!(refused(&folder.path().join("none/socket")).contains("make it first"));
        assert!(refused(Path::new("/")).contains("not a path of a file"));
    }

    #[tokio::test]
    async fn the_path_is_the_last_ones_who_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("handover");
        let place = Place::at(&path).unwrap();
        assert!(place.running().await.unwrap().is_none());
        let first = place.bind().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = place.bind().unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).await.is_ok(), "the second one's is not taken away by the first");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        // One that was killed leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(place.running().await.unwrap().is_none());
        assert!(place.bind().is_ok());
    }
}
