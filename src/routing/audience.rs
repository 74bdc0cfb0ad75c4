//! Which version a request gets where the weights alone do not say: rules, then its user (semantics §3).

use crate::model::{ChoiceReason, OnEmpty, RouteSpec, Share};

use super::cohort::CompiledCohort;
use super::request_view::RequestView;
use super::rules::CompiledRule;
use super::table::{Choice, Placed, Route};

/// The rules and the cohort of a route, with the places of its versions.
#[derive(Clone, Debug)]
pub(super) struct CompiledAudience {
    pub(super) rules: Vec<CompiledRule>,
    pub(super) cohort: Option<CompiledCohort>,
}

/// What is known of a route when its audience is compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    /// The shares that were asked for.
    pub(super) asked: &'a [Share],
    /// The shares by which requests are drawn.
    pub(super) drawn: &'a [Share],
    /// The place of the version that a rollout under way is judged of.
    pub(super) judged: Option<usize>,
    /// The place of the version that a rollout took back.
    pub(super) taken_back: Option<usize>,
}

/// Who gets the requests that a rule gives to a version (semantics §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heir {
    /// It itself: it has a usable pod, or nobody else may have them.
    Itself,
    /// Stable.
    Stable,
    /// One of the others, in proportion to their weights: stable has no usable pod either.
    Others,
}

impl CompiledAudience {
    /// That of a route; nothing where only weights decide, so that it costs nothing there.
    pub(super) fn of(spec: &RouteSpec, now: Situation<'_>) -> Option<Box<Self>> {
        let audience = &spec.audience;
        if audience.rules.is_empty() && audience.cohort.is_none() {
            return None;
        }
        let rules = audience.rules.iter().filter_map(|rule| {
            let version = spec.versions.iter().position(|v| v.name == *rule.verdict.version())?;
            Some(CompiledRule::new(rule, version, now.taken_back == Some(version)))
        });
        let cohort = audience.cohort.as_ref();
        let cohort = cohort.map(|cohort| CompiledCohort::new(cohort, now.asked, now.drawn, now.judged));
        Some(Box::new(Self { rules: rules.collect(), cohort }))
    }

    /// The version of this request, if a rule or its user decides.
    fn choose(
        &self,
        route: &Route,
        request: &dyn RequestView,
        mut random: impl FnMut() -> u64,
    ) -> Option<Choice> {
        if let Some(version) = self.rules.iter().find_map(|rule| rule.decide(request)) {
            return Some(route.ruled(version, random));
        }
        let cohort = self.cohort.as_ref()?;
        let user = cohort.user(request, &mut random)?;
        let stretch = cohort.at(user.point)?;
        let reason = if stretch.own { ChoiceReason::Cohort } else { ChoiceReason::Fallback };
        let version = route.versions.get(stretch.version)?;
        if let Some(users) = &version.users {
            users.add(user.point);
        }
        let share = cohort.judged.filter(|_| stretch.own && route.evidence.is_some());
        let placed = share.map(|share| Placed::User { point: user.point, share });
        Some(Choice { version: stretch.version, reason, placed, new_user: user.cookie })
    }
}

impl Route {
    /// The version of this request: by its rules, by its user, or else by the split, of which it takes one step
    /// (semantics §3). `random` gives 64 random bits a call.
    ///
    /// Nothing only when no version has a share, which a compiled route never has.
    pub fn choose_for(&self, request: &dyn RequestView, mut random: impl FnMut() -> u64) -> Option<Choice> {
        let audience = self.audience.as_deref();
        let chosen = audience.and_then(|audience| audience.choose(self, request, &mut random));
        chosen.or_else(|| self.choose(random))
    }

    /// Who gets the requests that a rule gives to this version.
    pub(super) fn heir(&self, version: usize) -> Heir {
        let usable = |at: usize| self.versions.get(at).is_some_and(|v| !v.candidates.is_empty());
        if usable(version) || self.spec.on_empty == OnEmpty::Fail {
            Heir::Itself
        } else if usable(0) {
            Heir::Stable
        } else if self.versions.iter().any(|v| v.drawn > Share::ZERO && !v.candidates.is_empty()) {
            Heir::Others
        } else {
            Heir::Itself
        }
    }

    /// A rule gave a request to this version.
    fn ruled(&self, version: usize, random: impl FnMut() -> u64) -> Choice {
        let (version, reason) = match self.heir(version) {
            Heir::Itself => (version, ChoiceReason::Rule),
            Heir::Stable => (0, ChoiceReason::Fallback),
            // Where stable is empty, the others are drawn in proportion to their weights.
            Heir::Others => (self.split.draw(random).unwrap_or(version), ChoiceReason::Fallback),
        };
        Choice { version, reason, placed: None, new_user: None }
    }
}

#[cfg(test)]
#[path = "audience_tests.rs"]
mod tests;
