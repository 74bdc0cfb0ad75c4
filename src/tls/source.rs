//! Where certificates come from, and the bytes that are there.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::model::{CertificateSource, PemSource, Problem, SecretData, SecretKey};

/// The longest file that is read: a bundle of every public authority has some 200 KiB.
const LONGEST: u64 = 1024 * 1024;

/// One thing that settings name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// A certificate with its key.
    Identity(CertificateSource),
    /// Certificates of authorities.
    Authorities(PemSource),
}

impl Source {
    /// The Secret that it is in.
    pub(super) fn secret(&self) -> Option<&SecretKey> {
        match self {
            Self::Identity(CertificateSource::Secret(key)) | Self::Authorities(PemSource::Secret(key)) => {
                Some(key)
            }
            Self::Identity(CertificateSource::Files { .. }) | Self::Authorities(PemSource::File(_)) => None,
        }
    }

    /// The files that it is in.
    pub(super) fn files(&self) -> Vec<&Path> {
        match self {
            Self::Identity(CertificateSource::Files { cert, key }) => vec![cert, key],
            Self::Authorities(PemSource::File(file)) => vec![file],
            Self::Identity(CertificateSource::Secret(_)) | Self::Authorities(PemSource::Secret(_)) => {
                Vec::new()
            }
        }
    }

    /// How it is called in metrics and in the log: the path of the certificate, or `secret:NAMESPACE/NAME`.
    pub(super) fn label(&self) -> String {
        match (self.secret(), self.files().first()) {
            (Some(secret), _) => format!("secret:{secret}"),
            (None, Some(file)) => file.display().to_string(),
            (None, None) => String::new(),
        }
    }
}

/// Some PEM text, and where it is.
pub(super) struct Text {
    /// For messages: a path, or a key of a Secret.
    pub(super) place: String,
    /// The text; wiped when it is dropped.
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl Text {
    /// What is in a file.
    pub(super) fn of_file(path: &Path) -> Result<Self, Problem> {
        Self::read(path).map_err(|error| unreadable(path, &error))
    }

    /// The same, with the system's own error.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { place: path.display().to_string(), bytes: read(path)? })
    }

    /// What a Secret has under a name; `of` picks it.
    pub(super) fn of_secret(
        secret: &SecretKey,
        name: &str,
        data: &SecretData,
        of: impl FnOnce(&SecretData) -> Option<&[u8]>,
    ) -> Result<Self, Problem> {
        let place = format!("`{name}` of Secret {secret}");
        match of(data) {
            Some(bytes) => Ok(Self { place, bytes: Zeroizing::new(bytes.to_vec()) }),
            None => Err(Problem::new(
                format!("the Secret {secret} has no `{name}`"),
                format!(
                    "`kubectl -n {} describe secret {}` shows what it has; a Secret of type kubernetes.io/tls has tls.crt and tls.key",
                    secret.namespace, secret.name
                ),
            )),
        }
    }
}

/// That a file cannot be read, and why.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        format!("the file {} cannot be read: {error}", path.display()),
        "check the path, the mount and the rights of the user that Serinus runs as",
    )
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        // The opening of a pipe would wait for whoever writes to it, and a device has no end.
        return Err(io::Error::other("it is not a file"));
    }
    // As long as it may be from the start: growing would leave parts of a key behind.
    let length = usize::try_from(metadata.len().min(LONGEST)).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(bytes)
}

/// What tells that a file is another one, or was written: device, inode, size, and when each of content and inode changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    path: PathBuf,
    state: Option<(u64, u64, u64, i64, i64, i64, i64)>,
}

/// A file that was written a moment ago may be written again within the same tick of the file system's clock.
const RESTING: Duration = Duration::from_secs(2);

impl Trace {
    /// The trace of a file, through every link on the way to it.
    pub(super) fn of(path: &Path) -> Self {
        let state = std::fs::metadata(path)
            .ok()
            .map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()));
        Self { path: path.to_owned(), state }
    }

    /// Whether the file has not been touched for a while, so that the next change will show.
    pub(super) fn is_resting(&self, now: SystemTime) -> bool {
        let Some((.., changed, _)) = self.state else { return true };
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(changed).unwrap_or(0));
        now.duration_since(changed).is_ok_and(|age| age > RESTING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Text::of_file(path).err().unwrap().to_string();
        assert!(refused(&folder.path().join("none")).contains("No such file"));
        assert!(refused(folder.path()).contains("not a file"));
        assert!(refused(Path::new("/dev/zero")).contains("not a file"));
        let long = folder.path().join("long");
        std::fs::write(&long, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(refused(&long).contains("longer than 1 MiB"));
        std::fs::write(&long, vec![b'x'; 1024 * 1024]).unwrap();
        assert_eq!(Text::of_file(&long).unwrap().bytes.len(), 1024 * 1024);
    }

    #[test]
    fn a_trace_changes_with_the_file_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "1").unwrap();
        std::fs::write(path("b"), "1").unwrap();
        std::os::unix::fs::symlink("a", path("link")).unwrap();
        let first = Trace::of(&path("link"));
        assert_eq!(first, Trace::of(&path("link")));
        std::os::unix::fs::symlink("b", path("new")).unwrap();
        std::fs::rename(path("new"), path("link")).unwrap();
        assert_ne!(first, Trace::of(&path("link")));
        assert!(!Trace::of(&path("link")).is_resting(SystemTime::now()), "it was written just now");
        assert!(Trace::of(&path("link")).is_resting(SystemTime::now() + Duration::from_secs(5)));
        assert!(Trace::of(&path("none")).is_resting(SystemTime::now()));
    }
}
