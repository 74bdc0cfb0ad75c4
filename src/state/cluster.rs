//! What was heard from the cluster: Services, EndpointSlices and Pods, joined by name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::{
    ClusterChange, ClusterKind, Namespace, Pod, PodKey, Service, ServiceKey, Slice, TargetRef,
};

use super::Touched;

/// What was heard from the cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(super) services: HashMap<ServiceKey, Service>,
    pub(super) slices: HashMap<ServiceKey, BTreeMap<Arc<str>, Slice>>,
    pub(super) pods: HashMap<PodKey, Pod>,
    /// Who points at a pod: so that a pod's news finds its Services.
    pointers: HashMap<PodKey, Pointers>,
    /// What has been listed whole at least once.
    listed: HashSet<(ClusterKind, Namespace)>,
}

/// Which Services point at a pod.
#[derive(Debug, Default, PartialEq)]
struct Pointers {
    /// Each with the number of its endpoints that do.
    services: Vec<(ServiceKey, usize)>,
    /// The uid of the last pod of that name that was deleted while they did.
    departed: Option<Arc<str>>,
}

impl Cluster {
    /// Whether Services, slices and Pods of the Service's namespace have all been listed.
    #[must_use]
    pub fn knows(&self, service: &ServiceKey) -> bool {
        ClusterKind::ALL.iter().all(|kind| self.has_listed(*kind, &service.namespace))
    }

    /// The uid of a Service, where it is known.
    #[must_use]
    pub fn uid(&self, service: &ServiceKey) -> Option<Arc<str>> {
        self.services.get(service).map(|service| Arc::clone(&service.uid)).filter(|uid| !uid.is_empty())
    }

    pub(super) fn has_listed(&self, kind: ClusterKind, namespace: &Namespace) -> bool {
        self.listed.contains(&(kind, Arc::clone(namespace)))
    }

    /// Whether the pod was deleted, though a slice still points at it (semantics §2.2).
    pub(super) fn is_departed(&self, target: &TargetRef) -> bool {
        let departed = self.pointers.get(&target.pod).and_then(|p| p.departed.as_ref());
        departed.is_some_and(|departed| target.uid.as_ref().is_none_or(|uid| uid == departed))
    }

    /// Takes in what was heard, and tells which Services it touches.
    pub(super) fn apply(&mut self, change: ClusterChange) -> Touched {
        let mut touched = Touched::default();
        match change {
            ClusterChange::Services(namespace, all) => {
                let keep: HashSet<_> = all.iter().map(|(key, _)| key.clone()).collect();
                for gone in keys_gone(self.services.keys(), |k| k.namespace == namespace, &keep) {
                    self.service_deleted(&gone, &mut touched);
                }
                all.into_iter().for_each(|(key, service)| self.service_applied(key, service, &mut touched));
                self.first_list(ClusterKind::Services, namespace, &mut touched);
            }
            ClusterChange::ServiceApplied(key, service) => self.service_applied(key, service, &mut touched),
            ClusterChange::ServiceDeleted(key) => self.service_deleted(&key, &mut touched),
            ClusterChange::Slices(namespace, all) => {
                let keep: HashSet<_> = all.iter().map(|s| (s.service.clone(), Arc::clone(&s.name))).collect();
                let known = self
                    .slices
                    .iter()
                    .flat_map(|(s, named)| named.keys().map(move |n| (s.clone(), n.clone())));
                let known: Vec<_> = known.collect();
                for (service, name) in keys_gone(known.iter(), |(s, _)| s.namespace == namespace, &keep) {
                    self.slice_deleted(&service, &name, &mut touched);
                }
                all.into_iter().for_each(|slice| self.slice_applied(slice, &mut touched));
                self.first_list(ClusterKind::EndpointSlices, namespace, &mut touched);
            }
            ClusterChange::SliceApplied(slice) => self.slice_applied(slice, &mut touched),
            ClusterChange::SliceDeleted(service, name) => self.slice_deleted(&service, &name, &mut touched),
            ClusterChange::Pods(namespace, all) => {
                let keep: HashSet<_> = all.iter().map(|pod| pod.key.clone()).collect();
                for gone in keys_gone(self.pods.keys(), |k| k.namespace == namespace, &keep) {
                    self.pod_deleted(&gone, &mut touched);
                }
                all.into_iter().for_each(|pod| self.pod_applied(pod, &mut touched));
                self.first_list(ClusterKind::Pods, namespace, &mut touched);
            }
            ClusterChange::PodApplied(pod) => self.pod_applied(pod, &mut touched),
            ClusterChange::PodDeleted(key) => self.pod_deleted(&key, &mut touched),
            ClusterChange::NamespaceForgotten(namespace) => self.forget(&namespace, &mut touched),
        }
        touched
    }

    /// A first list changes what is a problem: a Service that is not in it does not exist.
    fn first_list(&mut self, kind: ClusterKind, namespace: Namespace, touched: &mut Touched) {
        if self.listed.insert((kind, namespace)) {
            touched.everything = true;
        }
    }

    fn service_applied(&mut self, key: ServiceKey, service: Service, touched: &mut Touched) {
        if self.services.get(&key) != Some(&service) {
            touched.services.insert(key.clone());
            self.services.insert(key, service);
        }
    }

    fn service_deleted(&mut self, key: &ServiceKey, touched: &mut Touched) {
        if self.services.remove(key).is_some() {
            touched.services.insert(key.clone());
        }
    }

    fn slice_applied(&mut self, slice: Slice, touched: &mut Touched) {
        let named = self.slices.entry(slice.service.clone()).or_default();
        let before = named.get(&slice.name);
        if before == Some(&slice) {
            return;
        }
        let known: HashMap<_, _> = before.iter().flat_map(|b| &b.endpoints).map(|e| (e.address, e)).collect();
        let news = slice.endpoints.iter().filter(|e| known.get(&e.address) != Some(e));
        touched.spoken_of.extend(news.map(|e| e.address));
        touched.services.insert(slice.service.clone());
        for target in slice.endpoints.iter().filter_map(|e| e.target.as_ref()) {
            point(&mut self.pointers, &target.pod, &slice.service);
        }
        if let Some(before) = named.insert(Arc::clone(&slice.name), slice) {
            unpoint_all(&mut self.pointers, &before);
        }
    }

    fn slice_deleted(&mut self, service: &ServiceKey, name: &Arc<str>, touched: &mut Touched) {
        let Some(named) = self.slices.get_mut(service) else { return };
        if let Some(before) = named.remove(name) {
            unpoint_all(&mut self.pointers, &before);
            touched.services.insert(service.clone());
        }
        if named.is_empty() {
            self.slices.remove(service);
        }
    }

    fn pod_applied(&mut self, pod: Pod, touched: &mut Touched) {
        if self.pods.get(&pod.key) != Some(&pod) {
            self.touch_pod(&pod.key, touched);
            self.pods.insert(pod.key.clone(), pod);
        }
    }

    fn pod_deleted(&mut self, key: &PodKey, touched: &mut Touched) {
        if let Some(pod) = self.pods.remove(key) {
            self.touch_pod(key, touched);
            if let Some(pointers) = self.pointers.get_mut(key) {
                pointers.departed = Some(pod.uid);
            }
        }
    }

    fn touch_pod(&self, key: &PodKey, touched: &mut Touched) {
        let services = self.pointers.get(key).map(|p| p.services.as_slice()).unwrap_or_default();
        touched.services.extend(services.iter().map(|(service, _)| service.clone()));
    }

    fn forget(&mut self, namespace: &Namespace, touched: &mut Touched) {
        self.services.retain(|key, _| key.namespace != *namespace);
        for (_, gone) in self.slices.extract_if(|key, _| key.namespace == *namespace) {
            gone.values().for_each(|slice| unpoint_all(&mut self.pointers, slice));
        }
        self.pods.retain(|key, _| key.namespace != *namespace);
        self.listed.retain(|(_, listed)| listed != namespace);
        touched.everything = true;
    }
}

fn keys_gone<'a, K: Clone + Eq + std::hash::Hash + 'a>(
    known: impl Iterator<Item = &'a K>,
    in_scope: impl Fn(&K) -> bool,
    keep: &HashSet<K>,
) -> Vec<K> {
    known.filter(|key| in_scope(key) && !keep.contains(*key)).cloned().collect()
}

fn point(pointers: &mut HashMap<PodKey, Pointers>, pod: &PodKey, service: &ServiceKey) {
    let services = &mut pointers.entry(pod.clone()).or_default().services;
    match services.iter_mut().find(|(s, _)| s == service) {
        Some((_, count)) => *count += 1,
        None => services.push((service.clone(), 1)),
    }
}

fn unpoint_all(pointers: &mut HashMap<PodKey, Pointers>, slice: &Slice) {
    for target in slice.endpoints.iter().filter_map(|e| e.target.as_ref()) {
        let Some(Pointers { services, .. }) = pointers.get_mut(&target.pod) else { continue };
        if let Some((_, count)) = services.iter_mut().find(|(s, _)| *s == slice.service) {
            *count -= 1;
        }
        services.retain(|(_, count)| *count > 0);
        if services.is_empty() {
            pointers.remove(&target.pod);
        }
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
