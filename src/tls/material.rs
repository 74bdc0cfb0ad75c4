//! What is in the sources, read and checked: the last good content of each, and what is wrong with what is there now.
//! Synchronous; knows nothing of who uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::{CertificateSource, PemSource, Problem, SecretData, SecretKey, Timestamp};

use super::authorities::Authorities;
use super::identity::Identity;
use super::source::{Source, Text, Trace};

/// How often a file that was good and is not any more is read again before that is told: a certificate and its key are
/// rarely replaced in one moment.
const DOUBTS: u8 = 4;

/// Everything that is wanted.
#[derive(Default)]
pub(super) struct Material {
    entries: BTreeMap<Source, Entry>,
    secrets: BTreeMap<SecretKey, Heard>,
}

/// What is known of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Heard {
    /// The cluster has not said a word of it.
    #[default]
    Nothing,
    /// It does not exist.
    Gone,
    /// This is in it.
    Data(Arc<SecretData>),
}

/// What a source holds.
#[derive(Clone)]
enum Content {
    Identity(Arc<Identity>),
    Authorities(Arc<Authorities>),
}

#[derive(Default)]
struct Entry {
    /// The last good one.
    content: Option<Content>,
    /// What is wrong with the present one.
    problems: Vec<Problem>,
    /// The files as they were when they were read; nothing if they must be read again in any case.
    seen: Option<Vec<Trace>>,
    /// How often in a row the files were not good, while that is not told.
    doubts: u8,
}

/// What a look at the files found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The sources with new content.
    pub(super) changed: BTreeSet<Source>,
    /// Something is in the middle of being replaced, it seems: look again soon.
    pub(super) again: bool,
}

impl Material {
    /// What is wanted from now on; what is not is forgotten. Files are read by the next look. Tells the Secrets that are wanted.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Source>) -> BTreeSet<SecretKey> {
        self.entries.retain(|source, _| wanted.contains(source));
        for source in wanted {
            self.entries.entry(source.clone()).or_default();
        }
        let secrets: BTreeSet<_> = wanted.iter().filter_map(Source::secret).cloned().collect();
        self.secrets.retain(|key, _| secrets.contains(key));
        for key in &secrets {
            self.secrets.entry(key.clone()).or_default();
        }
        secrets
    }

    /// Reads what changed since it was read last: files, and what came to be wanted later than its Secret.
    pub(super) fn look(&mut self, now: SystemTime) -> Look {
        let mut look = Look::default();
        for (source, entry) in &mut self.entries {
            if let Some(Heard::Data(data)) = source.secret().and_then(|key| self.secrets.get(key))
                && entry.is_new()
                && entry.take(read(source, Some(data)), false, now)
            {
                look.changed.insert(source.clone());
            }
            let traces: Vec<_> = source.files().into_iter().map(Trace::of).collect();
            if traces.is_empty() || (entry.doubts == 0 && entry.seen.as_ref() == Some(&traces)) {
                continue;
            }
            let resting = traces.iter().all(|trace| trace.is_resting(now));
            if entry.take(read(source, None), true, now) {
                look.changed.insert(source.clone());
            }
            look.again |= entry.doubts > 0;
            // Taken before the reading: what is written meanwhile shows.
            entry.seen = resting.then_some(traces);
        }
        look
    }

    /// What the cluster says of a Secret; nothing if it does not exist. Tells which sources have new content.
    pub(super) fn secret(
        &mut self,
        key: &SecretKey,
        data: Option<Arc<SecretData>>,
        now: SystemTime,
    ) -> BTreeSet<Source> {
        let mut changed = BTreeSet::new();
        let Some(heard) = self.secrets.get_mut(key) else { return changed };
        let new = data.map_or(Heard::Gone, Heard::Data);
        if *heard == new {
            return changed;
        }
        *heard = new.clone();
        for (source, entry) in self.entries.iter_mut().filter(|(source, _)| source.secret() == Some(key)) {
            match &new {
                Heard::Data(data) => {
                    if entry.take(read(source, Some(data)), false, now) {
                        changed.insert(source.clone());
                    }
                }
                Heard::Gone | Heard::Nothing => entry.problems.clear(),
            }
        }
        changed
    }

    /// A certificate with its key, if it is there.
    pub(super) fn identity(&self, source: &CertificateSource) -> Option<Arc<Identity>> {
        match self.entries.get(&Source::Identity(source.clone()))?.content.as_ref()? {
            Content::Identity(identity) => Some(Arc::clone(identity)),
            Content::Authorities(_) => None,
        }
    }

    /// Certificates of authorities, if they are there.
    pub(super) fn authorities(&self, source: &PemSource) -> Option<Arc<Authorities>> {
        match self.entries.get(&Source::Authorities(source.clone()))?.content.as_ref()? {
            Content::Authorities(authorities) => Some(Arc::clone(authorities)),
            Content::Identity(_) => None,
        }
    }

    /// What is wrong with a source at a moment; `users` is who uses it, for messages.
    pub(super) fn problems(&self, source: &Source, users: &str, now: Timestamp) -> Vec<Problem> {
        let Some(entry) = self.entries.get(source) else { return Vec::new() };
        let mut problems = Vec::new();
        let there = entry.content.is_some();
        if let Some(key) = source.secret() {
            problems.extend(self.secrets.get(key).and_then(|heard| absent(key, heard, users, there)));
        }
        let then = if there { "; the one before stays in use" } else { "" };
        let told = entry.problems.iter();
        problems
            .extend(told.map(|p| Problem::new(format!("{users}: {}{then}", p.message), p.remedy.clone())));
        if let Some(Content::Identity(identity)) = &entry.content {
            problems.extend(identity.problem(&format!("{} ({users})", source.label()), now));
        }
        problems
    }

    /// The directories in which a change of a file shows.
    pub(super) fn directories(&self) -> BTreeSet<PathBuf> {
        let files = self.entries.keys().flat_map(Source::files);
        // A mounted Secret's `..data`, which is what is swapped, is beside its files.
        let absolute = files.filter_map(|file| std::path::absolute(file).ok());
        absolute.filter_map(|file| file.parent().map(ToOwned::to_owned)).collect()
    }
}

impl Entry {
    /// Whether nothing was ever read of it.
    fn is_new(&self) -> bool {
        self.content.is_none() && self.problems.is_empty()
    }

    /// Takes what was read; whether the content is another one now.
    fn take(&mut self, read: Result<Content, Vec<Problem>>, doubt: bool, now: SystemTime) -> bool {
        match read.and_then(|content| self.better(content, now)) {
            Ok(content) => {
                self.doubts = 0;
                self.problems.clear();
                let same = self.content.as_ref().is_some_and(|before| before.is_same(&content));
                if !same {
                    self.content = Some(content);
                }
                !same
            }
            Err(_) if doubt && self.content.is_some() && self.problems.is_empty() && self.doubts < DOUBTS => {
                self.doubts += 1;
                false
            }
            Err(problems) => {
                self.doubts = 0;
                self.problems = problems;
                false
            }
        }
    }

    /// An expired certificate is taken in place of none, and not in place of one that is still good.
    fn better(&self, content: Content, now: SystemTime) -> Result<Content, Vec<Problem>> {
        let now = Timestamp::from(now);
        if let (Some(Content::Identity(before)), Content::Identity(new)) = (&self.content, &content)
            && new.not_after < now
            && before.not_after >= now
        {
            let what = format!(
                "the certificate that came in place of the one in use has expired on {}",
                new.not_after
            );
            return Err(vec![Problem::new(what, "put a newer one in its place: it is read by itself")]);
        }
        Ok(content)
    }
}

impl Content {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Identity(one), Self::Identity(other)) => one.is_same(other),
            (Self::Authorities(one), Self::Authorities(other)) => one.is_same(other),
            (Self::Identity(_), Self::Authorities(_)) | (Self::Authorities(_), Self::Identity(_)) => false,
        }
    }
}

/// What there is to say of a Secret that is not there.
fn absent(key: &SecretKey, heard: &Heard, users: &str, in_use: bool) -> Option<Problem> {
    let SecretKey { namespace, name } = key;
    let create = format!(
        "create it, like `kubectl -n {namespace} create secret tls {name} --cert=FILE --key=FILE`: it is heard of by itself"
    );
    match (heard, in_use) {
        (Heard::Data(_), _) => None,
        (Heard::Gone, true) => Some(Problem::new(
            format!("{users}: the Secret {key} was deleted; what was in it stays in use until a restart"),
            create,
        )),
        (Heard::Gone, false) => Some(Problem::new(
            format!("{users}: there is no Secret {key}, and TLS that needs it is refused until there is"),
            create,
        )),
        (Heard::Nothing, _) => Some(Problem::new(
            format!(
                "{users}: nothing has been heard of the Secret {key} yet, and TLS that needs it is refused until then"
            ),
            "it comes from the cluster by itself; another problem may say what is in the way",
        )),
    }
}

/// Reads what a source holds: files, or what the cluster told of the Secret.
fn read(source: &Source, data: Option<&SecretData>) -> Result<Content, Vec<Problem>> {
    let nothing = SecretData::default();
    let data = data.unwrap_or(&nothing);
    match source {
        Source::Identity(CertificateSource::Files { cert, key }) => {
            identity(Text::of_file(cert), Text::of_file(key))
        }
        Source::Identity(CertificateSource::Secret(secret)) => identity(
            Text::of_secret(secret, "tls.crt", data, |data| data.certificate.as_deref()),
            Text::of_secret(secret, "tls.key", data, |data| data.key.as_ref().map(|key| key.as_slice())),
        ),
        Source::Authorities(PemSource::File(file)) => authorities(Text::of_file(file)),
        Source::Authorities(PemSource::Secret(secret)) => {
            authorities(Text::of_secret(secret, "ca.crt", data, |data| data.authorities.as_deref()))
        }
    }
}

fn identity(chain: Result<Text, Problem>, key: Result<Text, Problem>) -> Result<Content, Vec<Problem>> {
    match (chain, key) {
        (Ok(chain), Ok(key)) => Ok(Content::Identity(Arc::new(Identity::from_pem(&chain, &key)?))),
        (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
    }
}

fn authorities(text: Result<Text, Problem>) -> Result<Content, Vec<Problem>> {
    let text = text.map_err(|problem| vec![problem])?;
    Ok(Content::Authorities(Arc::new(Authorities::from_pem(&text)?)))
}
