//! Serinus among the endpoints of a Service: a request that it sent to itself would come back for ever
//! (semantics §1.6).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::model::{BackendRef, Problem};

use super::{Resolved, ResolvedEndpoint};

/// How many endpoints are named.
const NAMED: usize = 2;

/// Labels that tell one pod of an application, or one release of it, from another.
const OF_ONE_POD: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// Where this process takes requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// What its listeners are bound to.
    pub listeners: Vec<SocketAddr>,
    /// The addresses of this machine, or of this pod, besides loopback.
    pub machine: BTreeSet<IpAddr>,
}

impl OwnAddresses {
    /// Whether a connection to this address is taken by one of the listeners.
    #[must_use]
    pub fn has(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        // Nothing else can listen at a port of this machine where a listener has it for every address; that of IPv6 takes IPv4
        // too, as Linux has it. Who connects to 0.0.0.0 gets to loopback.
        let here = ip.is_loopback() || ip.is_unspecified() || self.machine.contains(&ip);
        let takes = |listener: &SocketAddr| {
            let every = listener.ip().is_unspecified() && (listener.is_ipv6() || address.is_ipv4());
            listener.ip() == ip || (every && here)
        };
        self.listeners.iter().any(|listener| listener.port() == address.port() && takes(listener))
    }

    /// Takes this process out of a backend's endpoints, and its replicas too: pods of the same workload. A problem says so.
    pub(super) fn leave_out(&self, backend: &BackendRef, resolved: &mut Resolved) {
        let itself = |e: &ResolvedEndpoint| self.has(e.id.address);
        if !resolved.endpoints.iter().any(itself) {
            return;
        }
        let own: Vec<_> = resolved.endpoints.iter().filter(|e| itself(e)).filter_map(workload).collect();
        let replica = |e: &ResolvedEndpoint| workload(e).is_some_and(|workload| own.contains(&workload));
        let out: BTreeSet<SocketAddr> =
            resolved.endpoints.iter().filter(|e| itself(e) || replica(e)).map(|e| e.id.address).collect();
        let (left, kept) =
            std::mem::take(&mut resolved.endpoints).into_iter().partition(|e| out.contains(&e.id.address));
        resolved.endpoints = kept;
        resolved.problems.push(problem(backend, &left));
    }
}

/// What all pods of a workload have in common: namespace, the name of what made them, and labels; nothing for what is no pod, or
/// has no labels. Labels alone are not enough: the pods of a whole chart may have the same.
fn workload(endpoint: &ResolvedEndpoint) -> Option<(&str, &str, BTreeMap<&str, &str>)> {
    let pod = endpoint.pod.as_ref()?;
    let all = endpoint.labels.as_ref()?;
    let labels = all.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let labels: BTreeMap<_, _> = labels.filter(|(key, _)| !OF_ONE_POD.contains(key)).collect();
    // `NAME-HASH-POD` of a Deployment, `NAME-POD` of a DaemonSet, `NAME-NUMBER` of a StatefulSet.
    let name = pod.name.rsplit_once('-').map_or(&*pod.name, |(name, _)| name);
    let hash = all.iter().find(|(key, _)| key.as_str() == "pod-template-hash").map(|(_, hash)| hash.as_str());
    let cut = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    (!labels.is_empty()).then_some((&*pod.namespace, cut.unwrap_or(name), labels))
}

fn problem(backend: &BackendRef, left: &[ResolvedEndpoint]) -> Problem {
    let name = |endpoint: &ResolvedEndpoint| match &endpoint.pod {
        Some(pod) => format!("{} of {}/{}", endpoint.id.address, pod.namespace, pod.name),
        None => endpoint.id.address.to_string(),
    };
    let mut named: Vec<_> = left.iter().take(NAMED).map(name).collect();
    if let more @ 1.. = left.len() - named.len() {
        named.push(format!("and {more} more"));
    }
    Problem::new(
        format!(
            "Service {} leads to Serinus itself ({}): requests sent there would come back for ever, so that none are",
            backend.service,
            named.join(", ")
        ),
        "let the Service select the application's pods and none of Serinus', or take the address out of `discovery.static`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Cluster;
    use crate::state::samples::{backend, lists, pod, service, slice};

    fn own(listeners: &[&str], machine: &[&str]) -> OwnAddresses {
        OwnAddresses {
            listeners: listeners.iter().map(|a| a.parse().unwrap()).collect(),
            machine: machine.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn an_address_is_own_where_a_listener_takes_its_connections() {
        let every = own(&["0.0.0.0:8080"], &["10.0.0.9", "fd00::9"]);
        for (address, is_own) in [
            ("10.0.0.9:8080", true),
            ("10.0.0.9:8081", false),
            ("10.0.0.8:8080", false),
            ("127.0.0.1:8080", true),
            ("127.0.1.7:8080", true),
            ("0.0.0.0:8080", true),
            ("[fd00::9]:8080", false),
            ("[::1]:8080", false),
        ] {
            assert_eq!(every.has(address.parse().unwrap()), is_own, "{address}");
        }
        let both = own(&["[::]:8080"], &["10.0.0.9", "fd00::9"]);
        assert!(
            ["10.0.0.9:8080", "[fd00::9]:8080", "[::1]:8080"].iter().all(|a| both.has(a.parse().unwrap()))
        );
        let one = own(&["127.0.0.1:8080", "10.0.0.9:80"], &["10.0.0.9"]);
        assert!(one.has("127.0.0.1:8080".parse().unwrap()) && one.has("10.0.0.9:80".parse().unwrap()));
        // Others may listen there.
        assert!(!one.has("127.0.0.2:8080".parse().unwrap()) && !one.has("10.0.0.9:8080".parse().unwrap()));
    }

    /// What is left of a Service with these endpoints and pods, and what is said.
    fn left(own: &OwnAddresses, endpoints: &str, pods: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut cluster = Cluster::default();
        let pods = pods.iter().map(|(name, labels)| pod(name, labels)).collect();
        let changes = lists(vec![service("svc", "=80")], vec![slice("s1", "svc", "=8080", endpoints)], pods);
        changes.into_iter().for_each(|change| drop(cluster.apply(change)));
        let backend = backend("svc");
        let mut resolved = cluster.resolve(&backend);
        own.leave_out(&backend, &mut resolved);
        let problems = resolved.problems.into_iter().map(|p| p.message).collect();
        (resolved.endpoints.iter().map(|e| e.id.address.ip().to_string()).collect(), problems)
    }

    #[test]
    fn s1_6_it_and_its_replicas_are_left_out_and_nobody_else() {
        let own = own(&["0.0.0.0:8080"], &["10.0.0.1"]);
        let endpoints =
            "10.0.0.1 serinus-1-a, 10.0.0.2 serinus-2-b, 10.0.0.3 serinus-1-c, 10.0.0.4 shop-1-d, 10.0.0.5";
        let pods = [
            ("serinus-1-a", "app=shop pod-template-hash=1"),
            ("serinus-2-b", "app=shop pod-template-hash=2"),
            ("serinus-1-c", "app=shop version=v2"),
            // Of the same chart, with its labels.
            ("shop-1-d", "app=shop pod-template-hash=1"),
        ];
        let (kept, problems) = left(&own, endpoints, &pods);
        assert_eq!(kept, ["10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        let said = "Service web/svc leads to Serinus itself (10.0.0.1:8080 of web/serinus-1-a, 10.0.0.2:8080 of \
                    web/serinus-2-b): requests sent there would come back for ever, so that none are";
        assert_eq!(problems, [said]);
        // Without labels nobody is like it.
        assert_eq!(left(&own, "10.0.0.1 a, 10.0.0.2 b", &[("a", ""), ("b", "")]).0, ["10.0.0.2"]);
        assert_eq!(left(&own, "10.0.0.1, 10.0.0.2", &[]).0, ["10.0.0.2"]);
        // Where it is not, its labels say nothing.
        let (kept, problems) = left(&own, "10.0.0.2 serinus-2-b, 10.0.0.3 serinus-1-c", &pods);
        assert_eq!((kept.len(), problems.len()), (2, 0));
    }
}
