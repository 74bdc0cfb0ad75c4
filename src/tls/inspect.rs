//! Looks at certificates in files without putting them into force: for a config that is checked, perhaps where they are not.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::model::{CertificateSource, PemSource, Problem, Timestamp};

use super::authorities::Authorities;
use super::identity::{Identity, read_chain, read_key};
use super::source::{Source, Text, unreadable};

/// Something that there is to say of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// How bad it is.
    pub kind: FindingKind,
    /// What it is; for [`FindingKind::NotHere`] only that.
    pub problem: Problem,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The file is not here, or may not be read by this user: nothing is known of it. It may be where the router runs.
    NotHere,
    /// It is here and cannot be used.
    Bad,
    /// It can be used, and has expired, or is near its end or before its beginning.
    Aging,
}

/// Everything that there is to say of a certificate with its key; nothing of one in a Secret.
#[must_use]
pub fn inspect_certificate(source: &CertificateSource, now: SystemTime) -> Vec<Finding> {
    let CertificateSource::Files { cert, key } = source else { return Vec::new() };
    let (mut findings, mut sound) = (Vec::new(), 0);
    let mut halves = (None, None);
    let mut take = |file: &Path, text: &mut Option<Text>, read: fn(&Text) -> Vec<Problem>| match open(file) {
        Ok(found) => {
            let problems = read(&found);
            sound += u8::from(problems.is_empty());
            findings.extend(problems.into_iter().map(|problem| bad(file, problem)));
            *text = Some(found);
        }
        Err(finding) => findings.push(finding),
    };
    take(cert, &mut halves.0, |text| read_chain(text).err().unwrap_or_default());
    take(key, &mut halves.1, |text| read_key(text).err().into_iter().collect());
    if let (Some(chain_text), Some(key_text)) = &halves
        && sound == 2
    {
        match Identity::from_pem(chain_text, key_text) {
            // Each is sound by itself.
            Err(problems) => findings.extend(problems.into_iter().map(|problem| bad(key, problem))),
            Ok(identity) => {
                let label = Source::Identity(source.clone()).label();
                let aging = identity.problem(&label, Timestamp::from(now));
                let finding = |problem| Finding { file: cert.clone(), kind: FindingKind::Aging, problem };
                findings.extend(aging.map(finding));
            }
        }
    }
    findings
}

/// Everything that there is to say of certificates of authorities; nothing of those in a Secret.
#[must_use]
pub fn inspect_authorities(source: &PemSource) -> Vec<Finding> {
    let PemSource::File(file) = source else { return Vec::new() };
    match open(file).map(|text| Authorities::from_pem(&text)) {
        Ok(Ok(_)) => Vec::new(),
        Ok(Err(problems)) => problems.into_iter().map(|problem| bad(file, problem)).collect(),
        Err(finding) => vec![finding],
    }
}

fn bad(file: &Path, problem: Problem) -> Finding {
    Finding { file: file.to_owned(), kind: FindingKind::Bad, problem }
}

fn open(file: &Path) -> Result<Text, Finding> {
    Text::read(file).map_err(|error| {
        if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) {
            not_here(file, "not here")
        } else if error.kind() == ErrorKind::PermissionDenied {
            not_here(file, "may not be read by this user")
        } else {
            bad(file, unreadable(file, &error))
        }
    })
}

fn not_here(file: &Path, what: &str) -> Finding {
    Finding { file: file.to_owned(), kind: FindingKind::NotHere, problem: Problem::new(what, "") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::authority_tests::Authority;
    use super::*;

    #[test]
    fn what_is_there_is_looked_at_and_what_is_not_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Authority::new("a"), Authority::new("b"));
        let (one, other) = (a.issue(&["a.example"]), b.issue(&["b.example"]));
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let (cert, key, wrong) =
            (write("crt", &one.chain), write("key", &one.key), write("other", &other.key));
        let (garbage, none) = (write("garbage", "-----BEGIN"), folder.path().join("none"));
        let now = SystemTime::now();
        let look = |cert: &PathBuf, key: &PathBuf, now| {
            let found =
                inspect_certificate(&CertificateSource::Files { cert: cert.clone(), key: key.clone() }, now);
            found.into_iter().map(|f| (f.file, f.kind)).collect::<Vec<_>>()
        };
        assert_eq!(look(&cert, &key, now), []);
        assert_eq!(look(&cert, &wrong, now), [(wrong.clone(), FindingKind::Bad)]);
        assert_eq!(look(&none, &key, now), [(none.clone(), FindingKind::NotHere)]);
        // One half is looked at without the other.
        assert_eq!(
            look(&none, &garbage, now),
            [(none.clone(), FindingKind::NotHere), (garbage.clone(), FindingKind::Bad)]
        );
        assert_eq!(look(&garbage, &garbage, now).len(), 2);
        assert_eq!(
            look(&folder.path().to_owned(), &key, now),
            [(folder.path().to_owned(), FindingKind::Bad)]
        );
        assert_eq!(look(&key.join("below"), &key, now), [(key.join("below"), FindingKind::NotHere)]);
        let ages = Duration::from_secs(5_000 * 365 * 24 * 3600);
        assert_eq!(look(&cert, &key, now + ages), [(cert.clone(), FindingKind::Aging)]);

        let authorities = |file: &PathBuf| inspect_authorities(&PemSource::File(file.clone()));
        assert_eq!(authorities(&write("ca", &a.pem())), []);
        assert_eq!(authorities(&garbage)[0].kind, FindingKind::Bad);
        assert_eq!(authorities(&none)[0].kind, FindingKind::NotHere);
    }
}
