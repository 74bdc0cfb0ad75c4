//! What a request would get, and why: for `serinus explain`.

use serde::Serialize;

use crate::model::{ChoiceReason, Revision, RouteName, Share, VersionName};

use super::explain_audience::Decided;
use super::matcher::MatchedBy;
use super::request_view::RequestView;
use super::table::{Route, RoutingTable};

/// What a request would get, and why. Asking changes nothing: the split does not move.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The route; nothing when none matches, which is answered 404.
    pub route: Option<RouteName>,
    /// The revision of its weights.
    pub revision: Option<Revision>,
    /// The version, when only one is possible.
    pub version: Option<VersionName>,
    /// What decides the version: `rule`, `cohort`, `weight`, or `fallback` when its share comes from a version without pods.
    pub rule: Option<ChoiceReason>,
    /// The endpoint, when only one is possible.
    pub endpoint: Option<String>,
    /// Each version that is possible, with the chance that it is the one, in percent.
    pub versions: Vec<VersionOdds>,
    /// Why, step by step, in words.
    pub why: Vec<String>,
}

/// A version that a request may get.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionOdds {
    /// Its name.
    pub name: VersionName,
    /// The chance that a request gets it, in percent.
    pub percent: Share,
    /// The endpoints among which it would be sent.
    pub endpoints: Vec<String>,
}

/// How many endpoints of a version are listed.
const ENDPOINTS_SHOWN: usize = 20;

impl RoutingTable {
    /// What a request for this host and path would get.
    #[must_use]
    pub fn explain(&self, host: &str, path: &str, request: &dyn RequestView) -> Explanation {
        let Some((route, matched)) = self.find(host, path) else {
            let why = format!("no route takes host `{host}` with path `{path}`: answered 404 (no-route)");
            return Explanation {
                route: None,
                revision: None,
                version: None,
                rule: None,
                endpoint: None,
                versions: Vec::new(),
                why: vec![why],
            };
        };
        let host = match matched.host {
            MatchedBy::Exact => format!("host `{host}` is its own"),
            MatchedBy::Part(_) => format!("host `{host}` is under its suffix"),
            MatchedBy::Regex | MatchedBy::Every => "it takes every host that no other route names".to_owned(),
        };
        let path = match matched.path {
            MatchedBy::Exact => format!("path `{path}` is exactly its own"),
            MatchedBy::Part(0) => format!("path `{path}` is under its prefix `/`"),
            MatchedBy::Part(length) => {
                format!("path `{path}` is under its prefix `{}`", path.get(..length).unwrap_or(path))
            }
            MatchedBy::Regex | MatchedBy::Every => format!("path `{path}` matches its regular expression"),
        };
        let mut explanation = route.explain(request);
        explanation.why.insert(0, format!("route `{}`: {host}; {path}", route.name()));
        explanation
    }
}

impl Route {
    fn explain(&self, request: &dyn RequestView) -> Explanation {
        let mut why = Vec::new();
        let mut explanation = match self.decided(request, &mut why) {
            Some(Decided::Version(version, reason)) => self.explain_one(version, reason, why),
            Some(Decided::Drawn(reason)) => self.explain_drawn(Some(reason), why),
            None => self.explain_drawn(None, why),
        };
        let copied = self.explain_mirror(request, &explanation.versions);
        explanation.why.extend(copied);
        explanation
    }

    /// This version gets it, whatever the weights.
    fn explain_one(&self, version: usize, reason: ChoiceReason, mut why: Vec<String>) -> Explanation {
        let only = self.versions.get(version);
        why.push(match only.map_or(0, |v| v.candidates.len()) {
            _ if !self.known => format!("version `{}`: its pods are not known", self.called(version)),
            0 => format!("version `{}` has no usable pod: answered 503 (no-endpoints)", self.called(version)),
            n => format!("version `{}`: among {}", self.called(version), endpoints(n)),
        });
        why.extend(self.problems.iter().map(ToString::to_string));
        self.explanation(reason, only.map(|v| (v, Share::ALL)).into_iter().collect(), why)
    }

    /// It is drawn by the shares, by weight where no other reason is given.
    fn explain_drawn(&self, reason: Option<ChoiceReason>, mut why: Vec<String>) -> Explanation {
        for version in &self.versions {
            let (name, asked, drawn) = (&version.name, version.asked, version.drawn);
            why.push(match (asked == drawn, version.candidates.len()) {
                _ if !self.known => format!("version `{name}`: {asked} % by weight; its pods are not known"),
                (true, 0) if asked > Share::ZERO => {
                    format!("version `{name}`: {asked} % by weight, and no usable pod: answered 503")
                }
                (true, n) => format!("version `{name}`: {asked} % by weight, among {}", endpoints(n)),
                (false, 0) => format!("version `{name}`: {asked} % by weight, but it has no usable pod: given away"),
                (false, n) => format!(
                    "version `{name}`: {asked} % by weight, {drawn} % with the share of versions without pods, \
                     among {}",
                    endpoints(n)
                ),
            });
        }
        why.extend(self.problems.iter().map(ToString::to_string));
        let possible = |v: &&super::Version| v.drawn > Share::ZERO;
        let versions: Vec<_> = self.versions.iter().filter(possible).map(|v| (v, v.drawn)).collect();
        if let ([(only, _)], true) = (versions.as_slice(), self.known)
            && only.candidates.is_empty()
        {
            why.push("no endpoint is usable: answered 503 (no-endpoints)".to_owned());
        }
        let fallback = versions.iter().any(|(v, _)| v.asked == Share::ZERO);
        let reason = if fallback { ChoiceReason::Fallback } else { reason.unwrap_or(ChoiceReason::Weight) };
        self.explanation(reason, versions, why)
    }

    /// One of these versions gets it, each with this chance.
    fn explanation(
        &self,
        reason: ChoiceReason,
        versions: Vec<(&super::Version, Share)>,
        why: Vec<String>,
    ) -> Explanation {
        let only = match versions.as_slice() {
            [(only, _)] => Some(*only),
            _ => None,
        };
        Explanation {
            route: Some(self.name().clone()),
            revision: Some(self.revision),
            version: only.map(|v| v.name.clone()),
            rule: Some(reason),
            endpoint: only.and_then(|v| match v.candidates.as_slice() {
                [only] => Some(only.endpoint().id.address.to_string()),
                _ => None,
            }),
            versions: versions
                .into_iter()
                .map(|(v, percent)| VersionOdds {
                    name: v.name.clone(),
                    percent,
                    endpoints: v
                        .candidates
                        .iter()
                        .take(ENDPOINTS_SHOWN)
                        .map(|e| e.endpoint().id.to_string())
                        .collect(),
                })
                .collect(),
            why,
        }
    }
}

fn endpoints(n: usize) -> String {
    if n == 1 { "1 endpoint".to_owned() } else { format!("{n} endpoints") }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
