//! What one watch knows: events of the API are folded in, changes for the rest of Serinus come out. Synchronous.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource as _;
use kube::runtime::watcher::Event;

use crate::model::{Namespace, Problem};

use super::kinds::{Names, Watched};
use super::lenient::Lenient;
use super::supervisor::ObjectProblem;

/// Problems of single objects that one watch keeps and tells of; the rest is a number.
const MOST_PROBLEMS: usize = 32;

/// What one watch knows.
pub(super) struct Known<W: Watched> {
    namespace: Namespace,
    names: Names,
    objects: Objects<W>,
    /// A list that is still arriving: what was known before stays until it is complete.
    listing: Option<Objects<W>>,
    /// The problems that were told last.
    told: Vec<ObjectProblem>,
}

struct Objects<W: Watched> {
    kept: BTreeMap<Arc<str>, W::Kept>,
    problems: BTreeMap<Arc<str>, ObjectProblem>,
}

impl<W: Watched> Default for Objects<W> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), problems: BTreeMap::new() }
    }
}

/// What an event brought.
#[derive(Debug)]
pub(super) struct News<C> {
    /// In the order in which they must be applied.
    pub(super) changes: Vec<C>,
    /// How many objects a complete list has.
    pub(super) listed: Option<usize>,
    /// How many objects were heard of.
    pub(super) heard: u64,
}

impl<C> Default for News<C> {
    fn default() -> Self {
        Self { changes: Vec::new(), listed: None, heard: 0 }
    }
}

impl<W: Watched> Known<W> {
    pub(super) fn new(namespace: Namespace) -> Self {
        Self { namespace, names: Names::new(), objects: Objects::default(), listing: None, told: Vec::new() }
    }

    /// The watch starts anew and asks for something else.
    pub(super) fn select(&mut self, names: Names) {
        self.names = names;
        self.listing = None;
    }

    /// Folds one event in.
    pub(super) fn fold(&mut self, event: Event<Lenient<W::Object>>) -> News<W::Change> {
        match event {
            Event::Init => {
                self.listing = Some(Objects::default());
                News::default()
            }
            Event::InitApply(object) => {
                self.list(object);
                News { heard: 1, ..News::default() }
            }
            Event::InitDone => self.listed(),
            Event::Apply(object) => News { changes: self.apply(object), heard: 1, listed: None },
            Event::Delete(object) => News { changes: self.delete(&object), heard: 1, listed: None },
        }
    }

    /// All problems of objects, if they are not the same as last time.
    pub(super) fn problems(&mut self) -> Option<Vec<ObjectProblem>> {
        let all = &self.objects.problems;
        let mut problems: Vec<_> = all.values().take(MOST_PROBLEMS).cloned().collect();
        if all.len() > MOST_PROBLEMS {
            let more = all.len() - MOST_PROBLEMS;
            problems.push(ObjectProblem {
                service: None,
                problem: Problem::new(
                    format!(
                        "{more} more {} of namespace {} cannot be used",
                        W::KIND.plural(),
                        self.namespace
                    ),
                    "correct those that are named first",
                ),
            });
        }
        if problems == self.told {
            return None;
        }
        self.told.clone_from(&problems);
        Some(problems)
    }

    /// Whether a problem was told of before the last call of [`Known::problems`] changed that.
    pub(super) fn told(&self) -> &[ObjectProblem] {
        &self.told
    }

    fn list(&mut self, object: Lenient<W::Object>) {
        let Some((name, read)) = self.read(object) else { return };
        // One that does not decode stays as it was: its fault must not cost the pods behind it.
        let kept = if read.unread { self.objects.kept.get(&name).cloned() } else { read.kept };
        let listing = self.listing.get_or_insert_default();
        listing.kept.extend(kept.map(|kept| (Arc::clone(&name), kept)));
        listing.problems.extend(read.problem.map(|problem| (name, problem)));
    }

    fn listed(&mut self) -> News<W::Change> {
        self.objects = self.listing.take().unwrap_or_default();
        let all: Vec<_> = self.objects.kept.values().cloned().collect();
        News { listed: Some(all.len()), changes: vec![W::whole(&self.namespace, &self.names, all)], heard: 0 }
    }

    fn apply(&mut self, object: Lenient<W::Object>) -> Vec<W::Change> {
        let Some((name, read)) = self.read(object) else { return Vec::new() };
        match read.problem {
            Some(problem) => self.objects.problems.insert(Arc::clone(&name), problem),
            None => self.objects.problems.remove(&name),
        };
        if read.unread {
            return Vec::new();
        }
        let before = self.objects.kept.get(&name);
        if before == read.kept.as_ref() {
            // Most events of a pod are about its status.
            return Vec::new();
        }
        let mut changes = Vec::new();
        let place = read.kept.as_ref().map(W::deleted);
        // Gone, or now of another Service.
        changes.extend(before.map(W::deleted).filter(|old| Some(old) != place.as_ref()));
        changes.extend(read.kept.as_ref().map(W::applied));
        match read.kept {
            Some(kept) => self.objects.kept.insert(name, kept),
            None => self.objects.kept.remove(&name),
        };
        changes
    }

    fn delete(&mut self, object: &Lenient<W::Object>) -> Vec<W::Change> {
        let Some(name) = object.meta().name.as_deref() else { return Vec::new() };
        self.objects.problems.remove(name);
        self.objects.kept.remove(name).iter().map(W::deleted).collect()
    }

    /// An object's name and what is made of it; nothing where it is not wanted.
    fn read(&self, object: Lenient<W::Object>) -> Option<(Arc<str>, Read<W::Kept>)> {
        let service = W::service(&self.namespace, &object);
        let wanted = self.names.is_empty()
            || service.as_ref().is_none_or(|service| self.names.contains(&service.name));
        let name = object.meta().name.clone();
        if !wanted && name.as_deref().is_none_or(|name| !self.objects.kept.contains_key(name)) {
            return None;
        }
        let name: Arc<str> = name.as_deref().unwrap_or("(without a name)").into();
        let place = || format!("{} {}/{name}", W::KIND.plural(), self.namespace);
        let read = match object {
            _ if !wanted => Read { kept: None, problem: None, unread: false },
            Lenient::Read(object) => {
                let conversion = W::convert(&self.namespace, object);
                let problem = conversion.problem.map(|problem| ObjectProblem { service, problem });
                Read { kept: conversion.kept, problem, unread: false }
            }
            Lenient::Unread(unread) => {
                let error = match W::CONFIDENTIAL {
                    true => "what is wrong is not shown, for it may be secret".to_owned(),
                    false => unread.error.chars().take(300).collect(),
                };
                let problem = Problem::new(
                    format!("{} does not decode: {error}; it stays as it was, or is left out", place()),
                    "correct the object; `kubectl get -o yaml` shows it",
                );
                Read { kept: None, problem: Some(ObjectProblem { service, problem }), unread: true }
            }
        };
        Some((name, read))
    }
}

struct Read<T> {
    kept: Option<T>,
    problem: Option<ObjectProblem>,
    unread: bool,
}
