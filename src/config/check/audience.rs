//! Who gets which version: rules that lead somewhere and can fit, and cohorts that know their users.

use std::collections::HashMap;

use ipnet::IpNet;

use super::once;
use super::routes::Regexes;
use crate::config::errors::{Errors, Place};
use crate::config::file::{CohortFile, ConditionFile, RouteFile, RuleFile, VersionFile};
use crate::config::hints::list;
use crate::config::input::{Field, Marked};
use crate::config::names::{CookieName, HeaderName, QueryName, ValueRegex, ValueText};
use crate::model::{
    Audience, Cohort, Condition, HashKey, Part, Rule, Test, Verdict, VersionName, VersionSpec,
};

/// How many rules a route may have, how many further conditions a rule, and how many networks: each is looked at for each
/// request.
const MOST_RULES: usize = 100;
const MOST_CONDITIONS: usize = 10;
const MOST_NETWORKS: usize = 1_000;
/// How many versions are named.
const NAMED: usize = 10;

/// Who gets which version of a route.
pub(super) fn audience(
    route: &RouteFile,
    versions: &[VersionSpec],
    regexes: &mut Regexes,
    errors: &mut Errors,
) -> Audience {
    let files = route.rules.given();
    let named = |files: &Vec<Marked<VersionFile>>| files.iter().all(|version| !version.value.name.is_bad());
    let known = Known { versions, all: route.versions.value().is_some_and(named) };
    let mut rules = Vec::new();
    let mut before = Before::default();
    if let Some(files) =
        files.filter(|files| too_many("rules", &files.value, MOST_RULES, &files.place, errors))
    {
        for file in &files.value {
            if let Some(rule) = rule(file, &known, regexes, errors) {
                before.add(&rule, &file.place, errors);
                rules.push(rule);
            }
        }
    }
    let salt = route.name.value().map(|name| name.as_str()).unwrap_or_default();
    Audience { rules, cohort: route.cohort.given().and_then(|file| cohort(file, salt, errors)) }
}

/// Whether there are not more than `most`; says so otherwise.
fn too_many<T>(of: &str, items: &[T], most: usize, place: &Place, errors: &mut Errors) -> bool {
    let fits = items.len() <= most;
    if !fits {
        errors.add(place, format!("has {} {of}, and can have {most}: leave some out", items.len()));
    }
    fits
}

/// The versions of a route.
struct Known<'a> {
    versions: &'a [VersionSpec],
    /// Whether these are all of them.
    all: bool,
}

impl Known<'_> {
    /// The version of this name, or an error.
    fn find(&self, asked: &Marked<VersionName>, errors: &mut Errors) -> Option<VersionName> {
        let found = self.versions.iter().find(|version| version.name == asked.value);
        if found.is_none() && self.all {
            let names = self.versions.iter().take(NAMED).map(|version| version.name.as_str());
            let names = list(&names.collect::<Vec<_>>());
            let message =
                format!("the route has no version `{}`: name one of {names}, or add it there", asked.value);
            errors.add(&asked.place, message);
        }
        found.map(|version| version.name.clone())
    }
}

fn rule(
    file: &Marked<RuleFile>,
    known: &Known<'_>,
    regexes: &mut Regexes,
    errors: &mut Errors,
) -> Option<Rule> {
    let (place, file) = (&file.place, &file.value);
    let asked = Value {
        place,
        header: &file.header,
        cookie: &file.cookie,
        query: &file.query,
        value: &file.value,
        regex: &file.regex,
        within_rule: true,
    };
    let part = asked.part(errors);
    let test = asked.test(!file.canary.is_absent(), regexes, errors);
    let verdict = verdict(place, file, part.as_ref(), known, errors);
    let mut conditions = Vec::new();
    // What a canary's part says is the verdict.
    let is_canary = matches!(verdict, Some(Verdict::Canary { .. }));
    if let (Some(Some(part)), Some(test), false) = (&part, &test, is_canary) {
        conditions.push(Condition::Value(part.clone(), test.clone()));
    }
    conditions.extend(methods(file, errors));
    conditions.extend(networks(file, errors));
    let further = further(file, regexes, errors)?;
    conditions.extend(further);
    let says_more = !(file.methods.is_absent() && file.client_cidrs.is_absent() && file.and.is_absent());
    if matches!(part, Some(None)) && !says_more && file.canary.is_absent() {
        let message = "says nothing of the request: give one of `header`, `cookie`, `query`, `methods`, `clientCidrs`; what \
                       every request gets is the weight of a version";
        errors.add(place, message);
        return None;
    }
    let whole = !file.methods.is_bad() && !file.client_cidrs.is_bad() && !file.and.is_bad();
    (part.is_some() && test.is_some() && whole).then_some(())?;
    Some(Rule { conditions, verdict: verdict? })
}

/// Where a rule leads.
fn verdict(
    place: &Place,
    file: &RuleFile,
    part: Option<&Option<Part>>,
    known: &Known<'_>,
    errors: &mut Errors,
) -> Option<Verdict> {
    match (&file.version, &file.canary) {
        (Field::Given(version), Field::Absent) => known.find(version, errors).map(Verdict::Version),
        (Field::Absent, Field::Given(canary)) => {
            let stable = known.versions.first().map(|version| &version.name);
            let found = if known.all && stable == Some(&canary.value) {
                let message = format!("`{}` is the stable version: name one of the others", canary.value);
                errors.add(&canary.place, message);
                None
            } else {
                known.find(canary, errors)
            };
            if matches!(part, Some(None)) {
                let message =
                    "does not say where a request asks for it: add one of `header`, `cookie`, `query`";
                errors.add(&canary.place, message);
            }
            Some(Verdict::Canary { by: part?.clone()?, version: found? })
        }
        (Field::Bad, _) | (_, Field::Bad) => None,
        (Field::Absent, Field::Absent) => {
            errors.add(place, "leads nowhere: add `version`, or `canary`");
            None
        }
        (Field::Given(_), Field::Given(canary)) => {
            errors.add(&canary.place, "cannot be used with `version`: remove one of them");
            None
        }
    }
}

fn methods(file: &RuleFile, errors: &mut Errors) -> Option<Condition> {
    let mut seen = HashMap::new();
    let methods = file.methods.value()?.iter().map(|method| {
        once(&mut seen, &method.value.0, &method.value.0, &method.place, errors);
        method.value.0.clone()
    });
    Some(Condition::Method(methods.collect()))
}

fn networks(file: &RuleFile, errors: &mut Errors) -> Option<Condition> {
    let given = file.client_cidrs.given()?;
    too_many("networks", &given.value, MOST_NETWORKS, &given.place, errors).then_some(())?;
    let mut seen = HashMap::new();
    let networks = given.value.iter().map(|network| {
        let net = network.value.trunc();
        once(&mut seen, net, net, &network.place, errors);
        net
    });
    Some(Condition::Client(networks.collect()))
}

/// The conditions under `and`; nothing where one is wrong.
fn further(file: &RuleFile, regexes: &mut Regexes, errors: &mut Errors) -> Option<Vec<Condition>> {
    let Some(given) = file.and.given() else { return Some(Vec::new()) };
    too_many("conditions", &given.value, MOST_CONDITIONS, &given.place, errors).then_some(())?;
    let read = |file: &Marked<ConditionFile>| {
        let ConditionFile { header, cookie, query, value, regex } = &file.value;
        let asked = Value { place: &file.place, header, cookie, query, value, regex, within_rule: false };
        let part = asked.part(errors);
        let test = asked.test(false, regexes, errors);
        Some(Condition::Value(part??, test?))
    };
    // All of them first, so that each error is said.
    let conditions: Vec<_> = given.value.iter().map(read).collect();
    conditions.into_iter().collect()
}

/// What is asked of a value.
struct Value<'a> {
    place: &'a Place,
    header: &'a Field<HeaderName>,
    cookie: &'a Field<CookieName>,
    query: &'a Field<QueryName>,
    value: &'a Field<ValueText>,
    regex: &'a Field<ValueRegex>,
    /// In a rule itself, which may also say other things.
    within_rule: bool,
}

impl Value<'_> {
    /// Where the value is; an inner nothing where it is not said. Nothing where it is wrong.
    fn part(&self, errors: &mut Errors) -> Option<Option<Part>> {
        if self.header.is_bad() || self.cookie.is_bad() || self.query.is_bad() {
            return None;
        }
        let header = self.header.value().map(|name| Part::Header(name.0.clone()));
        let cookie = self.cookie.value().map(|name| Part::Cookie(name.0.clone()));
        let query = self.query.value().map(|name| Part::Query(name.0.clone()));
        let mut parts = [header, cookie, query].into_iter().flatten();
        let (first, second) = (parts.next(), parts.next());
        if second.is_some() {
            let rest = if self.within_rule { ", and the others under `and`" } else { "" };
            let message = format!("says more than one thing: give one of `header`, `cookie`, `query`{rest}");
            errors.add(self.place, message);
            return None;
        }
        if first.is_none() && !self.within_rule {
            errors.add(self.place, "says nothing: give one of `header`, `cookie`, `query`");
            return None;
        }
        Some(first)
    }

    /// What the value must be; nothing where it is wrong.
    fn test(&self, asks_for_canary: bool, regexes: &mut Regexes, errors: &mut Errors) -> Option<Test> {
        let of_nothing = self.header.is_absent() && self.cookie.is_absent() && self.query.is_absent();
        let places = [self.value.given().map(|v| &v.place), self.regex.given().map(|r| &r.place)];
        for place in places.into_iter().flatten() {
            if asks_for_canary {
                let message =
                    "cannot be used with `canary`, which looks for `always` and `never`: remove one of them";
                errors.add(place, message);
                return None;
            }
            if of_nothing && self.within_rule {
                errors.add(place, "does not say of what: add one of `header`, `cookie`, `query`");
                return None;
            }
        }
        match (self.value, self.regex) {
            (Field::Bad, _) | (_, Field::Bad) => None,
            (Field::Absent, Field::Absent) => Some(Test::Present),
            (Field::Given(value), Field::Absent) => Some(Test::Is(value.value.0.clone())),
            (Field::Absent, Field::Given(regex)) => regexes.of_value(regex, errors),
            (Field::Given(_), Field::Given(regex)) => {
                errors.add(&regex.place, "cannot be used with `value`: remove one of them");
                None
            }
        }
    }
}

/// The rules so far: one that only fits what an earlier one takes would never fit.
#[derive(Default)]
struct Before {
    /// What each takes, a way for each word that it looks for, and its line.
    ways: Vec<(Vec<Condition>, usize)>,
}

impl Before {
    fn add(&mut self, rule: &Rule, place: &Place, errors: &mut Errors) {
        let ways = ways(rule);
        let taker = |way: &Vec<Condition>| self.ways.iter().find(|(before, _)| takes(before, way));
        let takers: Vec<_> = ways.iter().map(taker).collect();
        if let Some(Some((_, line))) = takers.first()
            && takers.iter().all(Option::is_some)
        {
            let message = format!(
                "would never fit: the rule on line {line}, before it, takes every request that it would: put it before \
                 that one, or remove it"
            );
            errors.add(place, message);
        }
        self.ways.extend(ways.into_iter().map(|way| (way, place.position.line)));
    }
}

/// The ways in which a request can fit a rule.
fn ways(rule: &Rule) -> Vec<Vec<Condition>> {
    match &rule.verdict {
        Verdict::Version(_) => vec![rule.conditions.clone()],
        Verdict::Canary { by, .. } => ["always", "never"]
            .map(|word| {
                let says = Condition::Value(by.clone(), Test::Is(word.to_owned()));
                rule.conditions.iter().cloned().chain([says]).collect()
            })
            .into(),
    }
}

/// Whether all of `before` holds wherever all of `after` does.
fn takes(before: &[Condition], after: &[Condition]) -> bool {
    before.iter().all(|wide| after.iter().any(|narrow| follows(narrow, wide)))
}

/// Whether `wide` holds wherever `narrow` does, as far as that is plain.
fn follows(narrow: &Condition, wide: &Condition) -> bool {
    match (narrow, wide) {
        (Condition::Value(a, narrow), Condition::Value(b, wide)) if a == b => match (narrow, wide) {
            (_, Test::Present) => true,
            (Test::Is(value), wide) => wide.passes(value.as_bytes()),
            (narrow, wide) => narrow == wide,
        },
        (Condition::Method(narrow), Condition::Method(wide)) => {
            narrow.iter().all(|method| wide.contains(method))
        }
        (Condition::Client(narrow), Condition::Client(wide)) => {
            let is_within = |net: &IpNet| wide.iter().any(|other| other.contains(net));
            narrow.iter().all(is_within)
        }
        (Condition::Value(..) | Condition::Method(_) | Condition::Client(_), _) => false,
    }
}

/// How users are dealt.
fn cohort(file: &Marked<CohortFile>, route: &str, errors: &mut Errors) -> Option<Cohort> {
    let CohortFile { header, cookie, client_ip, set, salt } = &file.value;
    if header.is_bad() || cookie.is_bad() || client_ip.is_bad() {
        return None;
    }
    let header = header.value().map(|name| HashKey::Header(name.0.clone()));
    let cookie = cookie.value().map(|name| HashKey::Cookie(name.0.clone()));
    let client = client_ip.value().copied().unwrap_or_default().then_some(HashKey::ClientIp);
    let mut keys = [header, cookie, client].into_iter().flatten();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        let what = if client_ip.is_absent() && file.value.header.is_absent() && file.value.cookie.is_absent()
        {
            "does not say what tells users apart"
        } else {
            "must have one key"
        };
        errors.add(&file.place, format!("{what}: give one of `header`, `cookie`, `clientIp: true`"));
        return None;
    };
    let set_value = set.value().copied().unwrap_or_default();
    if let Some(set) = set.given()
        && set_value
        && !matches!(key, HashKey::Cookie(_))
    {
        errors.add(&set.place, "sets a cookie, and there is none: add `cookie`, or remove this");
    }
    let salt = salt.value().map_or(route, |salt| salt.0.as_str()).to_owned();
    Some(Cohort { key, set: set_value, salt })
}
