//! What rules and cohorts make of a request, in words: for `serinus explain`.

use crate::model::{ChoiceReason, Condition, HashKey, Share, Test, Verdict};

use super::audience::Heir;
use super::cohort::{CompiledCohort, Stretch};
use super::request_view::{RequestView, any_value};
use super::rules::{CompiledRule, Wish, holds, wish};
use super::table::Route;

/// How many networks are listed, and how much of a text is shown, in characters.
const NETWORKS_SHOWN: usize = 5;
const TEXT_SHOWN: usize = 80;

/// What decides the version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decided {
    /// This version gets it, for this reason.
    Version(usize, ChoiceReason),
    /// It is drawn by the shares, for this reason.
    Drawn(ChoiceReason),
}

impl Route {
    /// What decides the version of this request, where it is not its weight alone; each step goes into `why`.
    pub(super) fn decided(&self, request: &dyn RequestView, why: &mut Vec<String>) -> Option<Decided> {
        let audience = self.audience.as_deref()?;
        for (i, rule) in audience.rules.iter().enumerate() {
            let said = format!("rule {}", i + 1);
            match self.by_rule(rule, request) {
                Ok((version, words)) => {
                    why.push(format!("{said} fits: {words}version `{}`", self.called(version)));
                    return Some(self.with_heir(version, why));
                }
                Err(words) => why.push(format!("{said} {words}")),
            }
        }
        audience.cohort.as_ref().and_then(|cohort| self.by_user(cohort, request, why))
    }

    /// The version that this rule gives the request, and why; or why it gives none.
    fn by_rule(&self, rule: &CompiledRule, request: &dyn RequestView) -> Result<(usize, String), String> {
        let does_not = rule.rule.conditions.iter().find(|condition| !holds(condition, request));
        if let Some(condition) = does_not {
            return Err(format!("does not fit: {}", unmet(condition, request)));
        }
        let said = match &rule.rule.verdict {
            Verdict::Version(_) => String::new(),
            Verdict::Canary { by, .. } => match wish(request, by) {
                Wish::Always => format!("{by} is `always`: "),
                Wish::Never => format!("{by} is `never`: "),
                Wish::Other if any_value(request, by, &mut |_| true) => {
                    return Err(format!("does not fit: {by} is neither `always` nor `never`"));
                }
                Wish::Other => return Err(format!("does not fit: there is no {by}")),
            },
        };
        match rule.decide(request) {
            Some(version) => Ok((version, said)),
            None => Err(format!(
                "would fit, and is ignored: it looks at a cookie, and the rollout of `{}` took it back; it counts again with the \
                 next rollout or a weight of its own",
                rule.rule.verdict.version()
            )),
        }
    }

    /// The version of a rule, or who gets its requests.
    fn with_heir(&self, version: usize, why: &mut Vec<String>) -> Decided {
        let nobody = format!("version `{}` has no usable pod", self.called(version));
        match self.heir(version) {
            Heir::Itself => Decided::Version(version, ChoiceReason::Rule),
            Heir::Stable => {
                why.push(format!("{nobody}: its requests go to `{}`", self.called(0)));
                Decided::Version(0, ChoiceReason::Fallback)
            }
            Heir::Others => {
                why.push(format!("{nobody}: its requests go to the others, by weight"));
                Decided::Drawn(ChoiceReason::Fallback)
            }
        }
    }

    fn by_user(
        &self,
        cohort: &CompiledCohort,
        request: &dyn RequestView,
        why: &mut Vec<String>,
    ) -> Option<Decided> {
        let key = match &cohort.cohort.key {
            HashKey::Header(name) => format!("header `{name}`"),
            HashKey::Cookie(name) => format!("cookie `{name}`"),
            HashKey::ClientIp => "the client's address".to_owned(),
        };
        let Some(point) = cohort.known(request) else {
            why.push(match (&cohort.cohort.key, cohort.cohort.set) {
                (_, true) => {
                    format!("cohort: a browser without {key} is given one, with a point of its own: by chance, as weighted")
                }
                (HashKey::ClientIp, false) => format!("cohort: {key} is not known: by weight"),
                (_, false) => format!("cohort: there is no {key}: by weight"),
            });
            return cohort.cohort.set.then_some(Decided::Drawn(ChoiceReason::Cohort));
        };
        let Stretch { begin, end, version, own } = cohort.at(point)?;
        let at = (point as f64 / 2_f64.powi(64) * 1e6).floor() / 1e6;
        let [begin, end] = [begin, end].map(|at| f64::from(at) / f64::from(Share::DENOMINATOR));
        let called = self.called(version);
        let whose = if own { "" } else { ", as those of a version without a usable pod" };
        why.push(format!(
            "cohort: {key} is a user at {at} of 1, and those from {begin} to {end} are version `{called}`'s{whose}"
        ));
        let reason = if own { ChoiceReason::Cohort } else { ChoiceReason::Fallback };
        Some(Decided::Version(version, reason))
    }

    /// The name of a version.
    pub(super) fn called(&self, version: usize) -> &str {
        self.versions.get(version).map_or("", |version| version.name.as_str())
    }
}

/// Why a condition does not hold of the request.
fn unmet(condition: &Condition, request: &dyn RequestView) -> String {
    match condition {
        Condition::Value(part, test) if any_value(request, part, &mut |_| true) => match test {
            Test::Present => format!("there is no {part}"),
            Test::Is(value) => format!("{part} is not `{}`", shown(value)),
            Test::Matches(_) => format!("{part} does not match `{}`", shown(test.pattern())),
        },
        Condition::Value(part, _) => format!("there is no {part}"),
        Condition::Method(methods) => {
            format!("the method is not {}", methods.join(" or "))
        }
        Condition::Client(networks) => {
            let mut list = networks
                .iter()
                .take(NETWORKS_SHOWN)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or ");
            if networks.len() > NETWORKS_SHOWN {
                list.push_str(&format!(" or {} more", networks.len() - NETWORKS_SHOWN));
            }
            match request.client() {
                Some(client) => format!("the client {} is not in {list}", client.to_canonical()),
                None => "the client's address is not known".to_owned(),
            }
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(TEXT_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
