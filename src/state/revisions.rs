//! The weights of a route, and how they came to be (contract §4).

mod rollouts;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Revision, RouteName, RouteSpec, Share, Timestamp, VersionName};
use crate::rollout::{AskedError, Rollout};

use self::rollouts::{DROPPED, give};
use super::Request;
use super::saved::SavedRoute;

/// How many revisions of a route are kept.
const HISTORY_KEPT: usize = 20;
/// How much of a reason or a name is kept, in characters.
const TEXT_KEPT: usize = 500;

/// Where a change of weights came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The config file.
    File,
    /// The admin API, the CLI included.
    Admin,
    /// A rollout.
    Rollout,
    /// A Kubernetes object.
    Kubernetes,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Source::File => "file",
            Source::Admin => "admin",
            Source::Rollout => "rollout",
            Source::Kubernetes => "kubernetes",
        })
    }
}

/// One change of a route's weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionEntry {
    /// Its number.
    pub revision: Revision,
    /// When.
    pub time: Timestamp,
    /// Where it came from.
    pub source: Source,
    /// Who asked, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The weights before, in percent.
    pub before: BTreeMap<VersionName, Share>,
    /// The weights after, in percent.
    pub after: BTreeMap<VersionName, Share>,
    /// Why, in the asker's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why weights were not changed. Nothing was changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// No such route.
    #[error("there is no route `{route}`; there {}", list(.known, "is", "are"))]
    UnknownRoute {
        /// What was asked for.
        route: String,
        /// What there is.
        known: Vec<RouteName>,
    },
    /// Weights that do not fit: each reason why.
    #[error("{}", .0.join("; "))]
    BadWeights(Vec<String>),
    /// The revision in force is not the one that was expected.
    #[error("revision {actual} is in force, not {expected}: read the route again and decide anew")]
    Stale {
        /// What the asker expected.
        expected: Revision,
        /// What is in force.
        actual: Revision,
    },
    /// The revision to go back to is not kept.
    #[error("revision {asked} is not kept; there {}", list(.kept, "is", "are"))]
    UnknownRevision {
        /// What was asked for.
        asked: Revision,
        /// What is kept, oldest first.
        kept: Vec<Revision>,
    },
    /// There is no revision with other weights before the one in force.
    #[error("nothing to undo: no revision before {0} has other weights")]
    NothingToUndo(Revision),
    /// The route has no rollout.
    #[error("route `{0}` has no rollout: give it `rollout: {{steps: […]}}` in the config")]
    NoRollout(RouteName),
    /// Its rollout does not do what was asked.
    #[error(transparent)]
    Rollout(#[from] AskedError),
    /// A version that is neither stable nor the canary has a share, so that nobody could tell them apart.
    #[error("a rollout compares two versions, and {0} has a share too: set its weight to 0 first")]
    ThirdVersion(VersionName),
    /// Such a version would get a share, or a larger one, while a rollout is under way.
    #[error(
        "the weights were not changed: a rollout of {canary} is under way, which compares two versions, and {third} would get a \
         share too: end it with `rollout abort` first"
    )]
    ThirdMeanwhile {
        /// The version that would get it.
        third: VersionName,
        /// The version that is rolled out.
        canary: VersionName,
    },
}

fn list<T: fmt::Display>(items: &[T], one: &str, many: &str) -> String {
    const SHOWN: usize = 20;
    let mut text = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    match items.len() {
        0 => format!("{one} none"),
        1 => format!("{one} {text}"),
        _ => format!("{many} {text}"),
    }
}

/// Whether a request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    Unchanged,
}

/// The weights of a route in force, and its last revisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteWeights {
    revision: Revision,
    /// In the order of the spec's versions, stable first; sums to the whole.
    split: Vec<(VersionName, Share)>,
    /// The weights last seen in the file; those of zero left out, so that listing a new version at 0 is no change.
    file: BTreeMap<VersionName, Share>,
    history: VecDeque<RevisionEntry>,
    /// Its last rollout.
    rollout: Option<Rollout>,
    /// Since that ended, its version had no pod at all.
    canary_left: bool,
    /// As it was last saved, so that saving costs nothing for the routes that did not change.
    last_saved: Option<Arc<SavedRoute>>,
}

impl RouteWeights {
    /// The revision in force; 0 before the first.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The share of each version, stable first; the sum is the whole.
    #[must_use]
    pub fn split(&self) -> &[(VersionName, Share)] {
        &self.split
    }

    /// The last revisions, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &RevisionEntry> + ExactSizeIterator {
        self.history.iter()
    }

    /// Whether one of the last revisions is of this request: the same asked for something in the same millisecond.
    pub(super) fn has_been_asked(&self, request: &Request) -> bool {
        let of = |entry: &RevisionEntry| {
            let who = request.who.as_deref().map(cut);
            (entry.time, entry.source, &entry.who) == (request.at, request.source, &who)
        };
        self.history.iter().any(of)
    }

    /// The weights that `spec` asks for, unless they are those last seen in the file; then the split in force goes on,
    /// fitted to the spec's versions.
    pub(super) fn adopt_file(&mut self, spec: &RouteSpec, at: Timestamp) -> Outcome {
        let in_file = without_zeros(&spec.weights());
        let first = self.revision == Revision(0);
        let dropped = self.drop_rollout(spec, at);
        let (split, reason) = if first || in_file != self.file {
            (spec.weights(), None)
        } else {
            let (mut split, lost) = self.fitted(spec);
            let mut reasons = Vec::new();
            if let Some(canary) = &dropped {
                // As whenever a rollout is aborted.
                give(&mut split, canary, Share::ZERO);
                reasons.push(DROPPED.to_owned());
            }
            if !lost.is_empty() {
                reasons.push(format!("{} left the config", lost.join(", ")));
            }
            (split, (!reasons.is_empty()).then(|| reasons.join("; ")))
        };
        if self.file != in_file {
            self.file = in_file;
            self.last_saved = None;
        }
        let request = Request { source: Source::File, who: None, reason, expected: None, at };
        self.change_by_hand(split, request)
    }

    pub(super) fn set(
        &mut self,
        spec: &RouteSpec,
        asked: &BTreeMap<String, Share>,
        request: Request,
    ) -> Result<Outcome, WeightsError> {
        self.expect(&request)?;
        let split = self.split_with(spec, asked).map_err(WeightsError::BadWeights)?;
        self.no_more_for_a_third(spec, &split)?;
        Ok(self.change_by_hand(split, request))
    }

    pub(super) fn undo(
        &mut self,
        spec: &RouteSpec,
        to: Option<Revision>,
        mut request: Request,
    ) -> Result<Outcome, WeightsError> {
        self.expect(&request)?;
        let target = match to {
            Some(asked) => self.history.iter().find(|e| e.revision == asked).ok_or_else(|| {
                WeightsError::UnknownRevision {
                    asked,
                    kept: self.history.iter().map(|e| e.revision).collect(),
                }
            })?,
            None => {
                // Not those of a rollout that left the weights as they were.
                let now = self.split.iter().cloned().collect();
                let other =
                    |entry: &&RevisionEntry| without_zeros_map(&entry.after) != without_zeros_map(&now);
                let earlier = self.history.iter().rev().skip(1).find(other);
                earlier.ok_or(WeightsError::NothingToUndo(self.revision))?
            }
        };
        let known = |name: &VersionName| spec.versions.iter().any(|v| v.name == *name);
        let stable = spec.versions.first().map(|v| &v.name);
        // Versions that came later had nothing then; one that is gone matters only if it had something; stable takes
        // the rest.
        let mut asked: BTreeMap<String, Share> =
            spec.versions.iter().skip(1).map(|v| (v.name.as_str().to_owned(), Share::ZERO)).collect();
        let then = target
            .after
            .iter()
            .filter(|(name, share)| Some(*name) != stable && (known(name) || **share > Share::ZERO));
        asked.extend(then.map(|(name, share)| (name.as_str().to_owned(), *share)));
        let back_to = target.revision;
        let split = self.split_with(spec, &asked).map_err(WeightsError::BadWeights)?;
        self.no_more_for_a_third(spec, &split)?;
        request.reason = Some(match request.reason {
            Some(reason) if !reason.is_empty() => format!("undo to revision {back_to}: {reason}"),
            _ => format!("undo to revision {back_to}"),
        });
        Ok(self.change_by_hand(split, request))
    }

    fn expect(&self, request: &Request) -> Result<(), WeightsError> {
        match request.expected {
            Some(expected) if expected != self.revision => {
                Err(WeightsError::Stale { expected, actual: self.revision })
            }
            _ => Ok(()),
        }
    }

    /// The split in force, fitted to the spec's versions: what a version that left the config had goes to stable.
    /// Also the names of such versions that had a share.
    fn fitted(&self, spec: &RouteSpec) -> (Vec<(VersionName, Share)>, Vec<String>) {
        let had =
            |name: &VersionName| self.split.iter().find(|(v, _)| v == name).map_or(Share::ZERO, |(_, s)| *s);
        let mut left = Share::ALL;
        let mut split: Vec<_> = spec
            .versions
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let share = if i == 0 { Share::ZERO } else { had(&v.name).min(left) };
                left = Share::from_millionths(left.millionths() - share.millionths()).unwrap_or_default();
                (v.name.clone(), share)
            })
            .collect();
        if let Some(stable) = split.first_mut() {
            stable.1 = left;
        }
        let lost = self
            .split
            .iter()
            .filter(|(name, share)| *share > Share::ZERO && !spec.versions.iter().any(|v| v.name == *name))
            .map(|(name, _)| name.to_string())
            .collect();
        (split, lost)
    }

    /// The split with the asked weights in it, or every reason why it cannot be.
    fn split_with(
        &self,
        spec: &RouteSpec,
        asked: &BTreeMap<String, Share>,
    ) -> Result<Vec<(VersionName, Share)>, Vec<String>> {
        let names: Vec<_> = spec.versions.iter().map(|v| v.name.clone()).collect();
        let mut errors: Vec<String> = asked
            .keys()
            .filter(|name| !names.iter().any(|n| n.as_str() == name.as_str()))
            .map(|name| {
                let name: String = name.chars().take(80).collect();
                format!("route `{}` has no version `{name}`; there {}", spec.name, list(&names, "is", "are"))
            })
            .collect();
        let (mut split, _) = self.fitted(spec);
        for (name, share) in split.iter_mut().skip(1) {
            *share = asked.get(name.as_str()).copied().unwrap_or(*share);
        }
        let canaries: u64 = split.iter().skip(1).map(|(_, s)| u64::from(s.millionths())).sum();
        let left = u64::from(Share::DENOMINATOR).checked_sub(canaries);
        let left = left.and_then(|l| u32::try_from(l).ok()).and_then(Share::from_millionths);
        let Some((stable, share)) = split.first_mut() else {
            return Err(vec![format!("route `{}` has no versions", spec.name)]);
        };
        match (left, asked.get(stable.as_str())) {
            (Some(left), Some(wanted)) if *wanted != left => errors.push(format!(
                "`{stable}` is the stable version and gets what the others leave: {left} percent, not {wanted}; \
                 leave it out, or give the others weights that leave it {wanted}"
            )),
            (Some(left), _) => *share = left,
            (None, _) => {
                let sum = split.iter().skip(1).map(|(n, s)| format!("{n} {s}")).collect::<Vec<_>>().join(" + ");
                errors.push(format!("the weights are more than 100 percent together: {sum}"));
            }
        }
        if errors.is_empty() { Ok(split) } else { Err(errors) }
    }

    fn change_to(&mut self, split: Vec<(VersionName, Share)>, request: Request) -> Outcome {
        let before: BTreeMap<_, _> = self.split.iter().cloned().collect();
        let after: BTreeMap<_, _> = split.iter().cloned().collect();
        if self.split != split {
            self.split = split;
            self.last_saved = None;
        }
        if without_zeros_map(&before) == without_zeros_map(&after) {
            return Outcome::Unchanged;
        }
        self.enter(before, after, request);
        Outcome::Changed
    }

    /// A revision with these weights, whether they are others or not.
    fn revise(&mut self, split: Vec<(VersionName, Share)>, request: Request) {
        let before: BTreeMap<_, _> = self.split.iter().cloned().collect();
        let after: BTreeMap<_, _> = split.iter().cloned().collect();
        self.split = split;
        self.enter(before, after, request);
    }

    fn enter(
        &mut self,
        before: BTreeMap<VersionName, Share>,
        after: BTreeMap<VersionName, Share>,
        request: Request,
    ) {
        self.last_saved = None;
        // A state file may say anything.
        self.revision = Revision(self.revision.0.saturating_add(1));
        self.history.push_back(RevisionEntry {
            revision: self.revision,
            time: request.at,
            source: request.source,
            who: request.who.as_deref().map(cut),
            before,
            after,
            reason: request.reason.as_deref().map(cut),
        });
        while self.history.len() > HISTORY_KEPT {
            self.history.pop_front();
        }
    }

    pub(super) fn from_saved(saved: &Arc<SavedRoute>) -> Self {
        let SavedRoute { revision, weights, file, history, rollout, canary_left } = saved.as_ref().clone();
        // The order of the versions, and the sum, are the spec's matter: `fitted` sees to both.
        Self {
            revision,
            split: weights.into_iter().collect(),
            file,
            history: history.into(),
            rollout,
            canary_left,
            last_saved: None,
        }
    }

    /// What must survive a restart; the same object until something changes.
    pub(super) fn saved(&mut self) -> Arc<SavedRoute> {
        let saved = self.last_saved.take().unwrap_or_else(|| Arc::new(self.to_saved()));
        self.last_saved = Some(Arc::clone(&saved));
        saved
    }

    fn to_saved(&self) -> SavedRoute {
        SavedRoute {
            revision: self.revision,
            weights: self.split.iter().cloned().collect(),
            file: self.file.clone(),
            history: self.history.iter().cloned().collect(),
            rollout: self.rollout.clone(),
            canary_left: self.canary_left,
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_KEPT).collect()
}

fn without_zeros(split: &[(VersionName, Share)]) -> BTreeMap<VersionName, Share> {
    split.iter().filter(|(_, share)| *share > Share::ZERO).cloned().collect()
}

fn without_zeros_map(split: &BTreeMap<VersionName, Share>) -> BTreeMap<&VersionName, Share> {
    split.iter().filter(|(_, share)| **share > Share::ZERO).map(|(v, s)| (v, *s)).collect()
}

#[cfg(test)]
#[path = "revisions_tests.rs"]
mod tests;
