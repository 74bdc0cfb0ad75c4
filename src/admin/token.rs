//! The token that lets one write.
//!
//! The file is read anew for each request that needs it, so that a rotated Secret works at once.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use subtle::ConstantTimeEq as _;

/// A larger file holds no token.
const LARGEST: u64 = 4096;

/// Why a token file cannot be used. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error(
        "the token file {path} cannot be read: {error}; check `admin.tokenFile`, that the Secret is mounted, and its rights"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What went wrong.
        error: std::io::Error,
    },
    /// There is nothing in it.
    #[error(
        "the token file {0} is empty: put a long random text into it, such as `openssl rand -hex 32` makes"
    )]
    Empty(String),
    /// What is in it is not a token.
    #[error(
        "the token file {path} holds no token: {reason}; put one line of visible ASCII characters into it"
    )]
    NotAToken {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Whether the token file can be used: for the start, which must fail when it cannot.
///
/// # Errors
/// When it cannot be read, is empty, or holds what cannot be sent in a header.
pub fn check_token_file(path: &Path) -> Result<(), TokenFileError> {
    read(path).map(drop)
}

fn read(path: &Path) -> Result<Vec<u8>, TokenFileError> {
    let shown = || path.display().to_string();
    let unreadable = |error| TokenFileError::Unreadable { path: shown(), error };
    // A pipe or a device would hold us up, or never end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(TokenFileError::NotAToken { path: shown(), reason: "it is not a regular file" });
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(TokenFileError::NotAToken { path: shown(), reason: "it is larger than 4096 bytes" });
    }
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(TokenFileError::Empty(shown()));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        let reason = "it has spaces, line ends or other characters that a header cannot carry";
        return Err(TokenFileError::NotAToken { path: shown(), reason });
    }
    Ok(token.to_vec())
}

/// A token file in use.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    /// Its last reading failed, and that was logged.
    failing: AtomicBool,
}

/// The token file cannot be read now; the log says why.
#[derive(Debug)]
pub(super) struct TokenUnknown;

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, failing: AtomicBool::new(false) }
    }

    /// Whether this is the token; takes the same time wherever the two differ.
    pub(super) async fn accepts(&self, offered: &[u8]) -> Result<bool, TokenUnknown> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(|_| TokenUnknown)?;
        match read {
            Ok(token) => {
                self.failing.store(false, Ordering::Relaxed);
                Ok(token.ct_eq(offered).into())
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "writes through the admin API are refused until its token can be read");
                }
                Err(TokenUnknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn surrounding_space_is_no_part_of_a_token() {
        assert_eq!(read(file(b" \ns3cret\r\n").path()).unwrap(), b"s3cret");
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_not_shown() {
        for (content, needle) in [
            (&b""[..], "is empty"),
            (b" \n\t", "is empty"),
            (b"hush hush", "holds no token"),
            (b"hush\nhush", "holds no token"),
            (b"hush\xff", "holds no token"),
            (&[b'h'; 5000], "larger"),
        ] {
            let file = file(content);
            let error = check_token_file(file.path()).unwrap_err().to_string();
            assert!(error.contains(needle) && !error.contains("hush"), "{error}");
            assert!(error.contains(&file.path().display().to_string()), "{error}");
        }
        let missing = check_token_file(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(missing.contains("cannot be read") && missing.contains("admin.tokenFile"), "{missing}");
        let device = check_token_file(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(device.contains("not a regular file"), "{device}");
    }

    #[tokio::test]
    async fn a_rotated_token_counts_at_once() {
        let file = file(b"old");
        let token = TokenFile::new(file.path().to_owned());
        assert!(token.accepts(b"old").await.unwrap());
        std::fs::write(file.path(), "new\n").unwrap();
        assert!(!token.accepts(b"old").await.unwrap());
        assert!(token.accepts(b"new").await.unwrap());
        assert!(!token.accepts(b"ne").await.unwrap() && !token.accepts(b"newer").await.unwrap());
        std::fs::remove_file(file.path()).unwrap();
        assert!(token.accepts(b"new").await.is_err());
        std::fs::write(file.path(), "back").unwrap();
        assert!(token.accepts(b"back").await.unwrap());
    }
}
