//! The state file: written whole or not at all, and never a reason not to start.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::state::{SAVED_FORMAT, SavedState};

/// A larger file is not one of ours: 10,000 routes with 20 revisions each are some 60 MB.
const LARGEST: u64 = 256 << 20;

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It could not be read or written.
    #[error(
        "the state file {path} cannot be {verb}: {error}; check the directory's existence, rights and free space"
    )]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        verb: &'static str,
        /// What went wrong.
        error: std::io::Error,
    },
    /// It was written by a later version.
    #[error(
        "the state file {path} has format {found}, and this version of Serinus knows up to {SAVED_FORMAT}: run the \
         version that wrote it, or move the file away to start without history"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
    },
}

/// What was found at the start.
#[derive(Debug)]
pub struct Restored {
    /// The state; empty where there was none, or none that could be understood.
    pub state: SavedState,
    /// What was wrong with the file, and where it was moved to.
    pub damaged: Option<String>,
}

/// A file that holds the state.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// Reads the file at `path`. One that is damaged is moved aside and reported, and the router starts without it.
    ///
    /// # Errors
    /// When it cannot be read, a test write beside it fails, or a later version wrote it.
    pub fn open(path: &Path) -> Result<(Self, Restored), StateFileError> {
        let file = Self { path: path.to_owned() };
        file.clear_unfinished();
        let restored = match file.read()? {
            None => Restored { state: SavedState::default(), damaged: None },
            Some(bytes) => match serde_json::from_slice::<SavedState>(&bytes) {
                Ok(state) if state.format > SAVED_FORMAT => {
                    return Err(StateFileError::Newer { path: file.shown(), found: state.format });
                }
                Ok(state) => Restored { state, damaged: None },
                Err(error) => match newer_format(&bytes) {
                    Some(found) => return Err(StateFileError::Newer { path: file.shown(), found }),
                    None => Restored {
                        state: SavedState::default(),
                        damaged: Some(file.move_aside(&error.to_string())?),
                    },
                },
            },
        };
        // Better told now than at the first change of weights.
        file.write(&restored.state)?;
        Ok((file, restored))
    }

    /// The file at `path`, which another process has: it is neither read nor written yet.
    #[must_use]
    pub fn inherited(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Writes the state: to a file beside, synced, then renamed over the old one, and the directory synced, so that a
    /// crash at any moment leaves one of the two whole.
    ///
    /// # Errors
    /// When any of that fails; the old file is as it was then.
    pub fn write(&self, state: &SavedState) -> Result<(), StateFileError> {
        let failed = |error| self.failed("written", error);
        let bytes = serde_json::to_vec(state).map_err(|e| failed(std::io::Error::other(e)))?;
        let beside = self.beside(".tmp");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            File::open(self.directory())?.sync_all()
        };
        write().map_err(failed)
    }

    fn read(&self) -> Result<Option<Vec<u8>>, StateFileError> {
        let failed = |error| self.failed("read", error);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LARGEST {
            return Err(failed(std::io::Error::other("it is larger than any state: is it the right file?")));
        }
        Ok(Some(bytes))
    }

    fn move_aside(&self, why: &str) -> Result<String, StateFileError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = self.beside(&format!(".damaged-{seconds}"));
        fs::rename(&self.path, &aside).map_err(|error| self.failed("moved aside", error))?;
        Ok(format!(
            "the state file {} was damaged ({why}); it was moved to {}, and the weights start from the config",
            self.shown(),
            aside.display()
        ))
    }

    /// What a crash in the middle of a write left.
    fn clear_unfinished(&self) {
        let _ = fs::remove_file(self.beside(".tmp"));
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn failed(&self, verb: &'static str, error: std::io::Error) -> StateFileError {
        StateFileError::Io { path: self.shown(), verb, error }
    }
}

/// The format of a file that says it is a later one, whatever else is in it.
fn newer_format(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    serde_json::from_slice::<Format>(bytes).ok().map(|f| f.format).filter(|found| *found > SAVED_FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> SavedState {
        let json = serde_json::json!({"format": 1, "routes": {"shop": {
            "revision": revision, "weights": {"v1": 99.9, "v2": 0.1}, "file": {"v2": 0.1}, "history": [],
        }}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let (file, restored) = StateFile::open(&path).unwrap();
        assert!(restored.damaged.is_none() && restored.state.routes.is_empty());
        file.write(&state(3)).unwrap();
        let (_, restored) = StateFile::open(&path).unwrap();
        assert_eq!(restored.state, state(3));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_reported() {
        let whole = serde_json::to_vec_pretty(&state(3)).unwrap();
        let truncated = &whole[..whole.len() / 2];
        let wrong = b"{\"format\": 1, \"routes\": {\"shop\": {\"weights\": {\"v1\": 200}}}}".as_slice();
        for bytes in [b"".as_slice(), truncated, b"\0\0\0\0", b"[]", wrong] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.json");
            fs::write(&path, bytes).unwrap();
            let (_, restored) = StateFile::open(&path).unwrap();
            let told = restored.damaged.unwrap();
            assert!(told.contains("was damaged") && told.contains("state.json.damaged-"), "{told}");
            let mut files = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
            let aside = files.find(|p| p.to_string_lossy().contains(".damaged-")).unwrap();
            assert_eq!(fs::read(aside).unwrap(), bytes);
        }
    }

    #[test]
    fn a_later_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, b"{\"format\": 2, \"shape\": \"unknown\"}").unwrap();
        let error = StateFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{\"format\": 2, \"shape\": \"unknown\"}");
    }

    #[test]
    fn a_crash_in_the_middle_of_a_write_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let (file, _) = StateFile::open(&path).unwrap();
        file.write(&state(3)).unwrap();
        fs::write(dir.path().join("state.json.tmp"), b"{\"format\": 1, \"rou").unwrap();
        let (_, restored) = StateFile::open(&path).unwrap();
        assert_eq!(restored.state, state(3));
    }

    #[test]
    fn a_directory_that_is_not_there_is_told_at_once() {
        let error = StateFile::open(Path::new("/nowhere/at/all/state.json")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all/state.json cannot be written"), "{error}");
    }
}
