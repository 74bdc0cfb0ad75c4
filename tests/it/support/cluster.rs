//! What controllers make of manifests: pods for Deployments, EndpointSlices for Services. No time passes by itself;
//! each step is a call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::apiserver::{ApiServer, documents};

/// The EndpointSlice controller's limit.
const ENDPOINTS_PER_SLICE: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodInfo {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) ip: IpAddr,
    pub(crate) labels: BTreeMap<String, String>,
    /// `containerPort`s by name; empty for those without one.
    pub(crate) ports: Vec<(String, u16)>,
}

/// Controllers over an API server.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    allocate: Box<dyn FnMut() -> IpAddr + Send>,
    made: usize,
}

/// A loopback address that no other test of this process has.
pub(crate) fn loopback_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    // Runners that give each test a process of its own run several at once: each process has a block of its own.
    let process = 0x7f02_0000 + ((std::process::id() % 0x3f00) << 10);
    // Without .0 and .255.
    let (block, last) = (next / 254, next % 254 + 1);
    Ipv4Addr::from(process + ((block % 4) << 8) + last).into()
}

/// `NAMESPACE/NAME`.
fn split(path: &str) -> (&str, &str) {
    path.split_once('/').expect("NAMESPACE/NAME")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn namespace(object: &Value) -> String {
    object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned()
}

fn deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// A hash in the alphabet that Kubernetes uses for names.
fn hash(text: &str, length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a.
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut name = String::new();
    for _ in 0..length {
        name.push(char::from(ALPHABET[usize::try_from(hash % 27).unwrap()]));
        hash = hash / 27 + (hash % 27) * 7_919;
    }
    name
}

impl Cluster {
    /// Controllers whose pods get their addresses from `allocate`.
    pub(crate) fn new(api: ApiServer, allocate: impl FnMut() -> IpAddr + Send + 'static) -> Self {
        Self { api, allocate: Box::new(allocate), made: 0 }
    }

    /// Applies a manifest of Namespaces, Services and Deployments, and makes its pods and slices.
    pub(crate) fn load(&mut self, yaml: &str) {
        let objects = documents(yaml);
        for object in objects.iter().filter(|object| object["kind"] != "Deployment") {
            self.api.apply(object.clone());
        }
        for object in objects.iter().filter(|object| object["kind"] == "Deployment") {
            self.deploy(object.clone());
        }
        for namespace in objects.iter().map(namespace).collect::<BTreeSet<_>>() {
            self.publish(&namespace);
        }
    }

    /// Applies one of the manifests of `tests/fixtures/manifests`.
    pub(crate) fn load_fixture(&mut self, name: &str) {
        let path = format!("{}/tests/fixtures/manifests/{name}", env!("CARGO_MANIFEST_DIR"));
        self.load(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")));
    }

    fn deploy(&mut self, deployment: Value) {
        let path = format!("{}/{}", namespace(&deployment), text(&deployment["metadata"]["name"]));
        let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        self.api.apply(deployment);
        self.scale(&path, usize::try_from(replicas).unwrap());
    }

    /// Makes pods, or ends the newest, until a Deployment has `replicas` of its present template.
    pub(crate) fn scale(&mut self, deployment: &str, replicas: usize) {
        let (namespace, name) = split(deployment);
        let object = self.api.get("deployments", namespace, name).expect("a Deployment");
        let hash = hash(&object["spec"]["template"].to_string(), 9);
        let present: Vec<_> = self
            .pods(deployment)
            .into_iter()
            .filter(|pod| pod.labels.get(TEMPLATE_HASH) == Some(&hash))
            .collect();
        for _ in present.len()..replicas {
            self.make_pod(namespace, name, &hash, &object["spec"]["template"]);
        }
        self.api.edit("deployments", namespace, name, |d| d["spec"]["replicas"] = replicas.into());
        self.publish(namespace);
        for pod in present.iter().skip(replicas).rev() {
            self.begin_delete(&format!("{namespace}/{}", pod.name));
            self.remove(&format!("{namespace}/{}", pod.name));
        }
    }

    /// Changes a Deployment's template and makes `replicas` pods of it, beside the old ones: a paused rollout.
    /// Gives the new `pod-template-hash`.
    pub(crate) fn surge(
        &mut self,
        deployment: &str,
        replicas: usize,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let (namespace, name) = split(deployment);
        self.api.edit("deployments", namespace, name, |d| change(&mut d["spec"]["template"]));
        self.scale(deployment, replicas);
        let object = self.api.get("deployments", namespace, name).expect("a Deployment");
        hash(&object["spec"]["template"].to_string(), 9)
    }

    /// Copies a Deployment under another name, with further labels and its own number of pods.
    pub(crate) fn create_version(
        &mut self,
        deployment: &str,
        name: &str,
        more: &[(&str, &str)],
        replicas: usize,
    ) {
        let (namespace, from) = split(deployment);
        let mut copy = self.api.get("deployments", namespace, from).expect("a Deployment");
        copy["metadata"] = json!({"name": name, "namespace": namespace});
        copy["spec"]["replicas"] = replicas.into();
        for (key, value) in more {
            copy["spec"]["selector"]["matchLabels"][*key] = (*value).into();
            copy["spec"]["template"]["metadata"]["labels"][*key] = (*value).into();
        }
        self.deploy(copy);
    }

    fn make_pod(&mut self, namespace: &str, deployment: &str, template_hash: &str, template: &Value) {
        self.made += 1;
        let name = format!("{deployment}-{template_hash}-{}", hash(&self.made.to_string(), 5));
        let mut labels = template["metadata"]["labels"].clone();
        labels[TEMPLATE_HASH] = template_hash.into();
        let owner = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-{template_hash}"),
            "uid": format!("rs-{deployment}-{template_hash}"), "controller": true,
        }]);
        self.api.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace, "labels": labels, "ownerReferences": owner,
                "annotations": {"order": format!("{:06}", self.made)},
            },
            "spec": template["spec"],
            "status": {
                "phase": "Running", "podIP": (self.allocate)().to_string(),
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }));
    }

    /// The pods of a Deployment, of all its templates, oldest first.
    pub(crate) fn pods(&self, deployment: &str) -> Vec<PodInfo> {
        let (namespace, name) = split(deployment);
        let owner = |pod: &Value| {
            let owner = text(&pod["metadata"]["ownerReferences"][0]["name"]);
            owner.rsplit_once('-').is_some_and(|(deployment, _)| deployment == name)
        };
        let mut pods: Vec<_> = self.api.all("pods", namespace).into_iter().filter(owner).collect();
        pods.sort_by_key(|pod| text(&pod["metadata"]["annotations"]["order"]));
        pods.iter().map(info).collect()
    }

    /// Every pod of every namespace.
    pub(crate) fn all_pods(&self) -> Vec<PodInfo> {
        self.api.everywhere("pods").iter().map(info).collect()
    }

    /// A pod's readiness probe changes its mind.
    pub(crate) fn set_ready(&mut self, pod: &str, ready: bool) {
        let (namespace, name) = split(pod);
        let status = if ready { "True" } else { "False" };
        self.api.edit("pods", namespace, name, |pod| {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        });
        self.publish(namespace);
    }

    /// A pod gets its `deletionTimestamp`, and then its slice says that it is terminating.
    pub(crate) fn begin_delete(&mut self, pod: &str) {
        self.mark_deleted(pod);
        self.publish(split(pod).0);
    }

    /// A pod gets its `deletionTimestamp`; no slice says so yet.
    pub(crate) fn mark_deleted(&mut self, pod: &str) {
        let (namespace, name) = split(pod);
        self.api.edit("pods", namespace, name, |pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        });
    }

    /// A pod is gone, and then its endpoint.
    pub(crate) fn remove(&mut self, pod: &str) {
        let (namespace, name) = split(pod);
        assert!(self.api.delete("pods", namespace, name), "no pod {pod}");
        self.publish(namespace);
    }

    /// Brings the EndpointSlices of a namespace up to date, as the controller does: no endpoint moves from slice to
    /// slice, new ones fill the gaps.
    pub(crate) fn publish(&mut self, namespace: &str) {
        let pods = self.api.all("pods", namespace);
        for service in self.api.all("services", namespace) {
            if service["spec"]["selector"].is_object() {
                self.publish_service(namespace, &service, &pods);
            }
        }
    }

    fn publish_service(&self, namespace: &str, service: &Value, pods: &[Value]) {
        let name = text(&service["metadata"]["name"]);
        let selector = labels(&service["spec"]["selector"]);
        let selected = pods.iter().filter(|pod| {
            let labels = labels(&pod["metadata"]["labels"]);
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        // Pods whose named ports have other numbers are in other slices.
        let mut groups: BTreeMap<(bool, String), (Value, BTreeMap<String, Value>)> = BTreeMap::new();
        for pod in selected {
            let ports = slice_ports(service, pod);
            let v6 = info(pod).ip.is_ipv6();
            let group = groups.entry((v6, ports.to_string())).or_insert_with(|| (ports, BTreeMap::new()));
            group.1.insert(text(&pod["metadata"]["uid"]), endpoint(service, pod));
        }
        let mut stale = self.api.all("endpointslices", namespace);
        stale.retain(|slice| slice["metadata"]["labels"][SERVICE_NAME] == name.as_str());
        if groups.is_empty() {
            // A Service without pods has one empty slice; Go writes an empty list as null.
            let mut slice = new_slice(namespace, &name, 0, "IPv4", &Value::Null);
            slice["endpoints"] = Value::Null;
            self.api.apply(slice.clone());
            stale.retain(|old| old["metadata"]["name"] != slice["metadata"]["name"]);
        }
        for ((v6, _), (ports, endpoints)) in groups {
            let address_type = if v6 { "IPv6" } else { "IPv4" };
            let of_group = |slice: &Value| slice["addressType"] == address_type && slice["ports"] == ports;
            let (mine, others): (Vec<Value>, Vec<Value>) = stale.into_iter().partition(of_group);
            stale = others;
            stale.extend(self.fill(mine, endpoints, || {
                let numbers = 1..;
                let free =
                    numbers.map(|n| new_slice(namespace, &name, n, address_type, &ports)).find(|slice| {
                        let name = text(&slice["metadata"]["name"]);
                        self.api.get("endpointslices", namespace, &name).is_none()
                    });
                free.unwrap()
            }));
        }
        for slice in stale {
            self.api.delete("endpointslices", namespace, &text(&slice["metadata"]["name"]));
        }
    }

    /// Puts endpoints, by the uid of their pod, into slices, and gives the slices that are not needed any more.
    fn fill(
        &self,
        slices: Vec<Value>,
        mut endpoints: BTreeMap<String, Value>,
        another: impl Fn() -> Value,
    ) -> Vec<Value> {
        let stay = |slice: Value, endpoints: &mut BTreeMap<String, Value>| {
            let old = slice["endpoints"].as_array().cloned().unwrap_or_default();
            let kept: Vec<Value> =
                old.iter().filter_map(|e| endpoints.remove(e["targetRef"]["uid"].as_str()?)).collect();
            (slice, kept)
        };
        let mut filled: Vec<_> = slices.into_iter().map(|slice| stay(slice, &mut endpoints)).collect();
        for endpoint in endpoints.into_values() {
            match filled.iter_mut().find(|(_, endpoints)| endpoints.len() < ENDPOINTS_PER_SLICE) {
                Some((_, endpoints)) => endpoints.push(endpoint),
                None => {
                    // Stored at once, so that the next one gets another name.
                    filled.push((self.api.apply(another()), vec![endpoint]));
                }
            }
        }
        let mut unneeded = Vec::new();
        for (mut slice, endpoints) in filled {
            if endpoints.is_empty() {
                unneeded.push(slice);
            } else {
                slice["endpoints"] = endpoints.into();
                self.api.apply(slice);
            }
        }
        unneeded
    }
}

fn info(pod: &Value) -> PodInfo {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    PodInfo {
        namespace: namespace(pod),
        name: text(&pod["metadata"]["name"]),
        uid: text(&pod["metadata"]["uid"]),
        ip: text(&pod["status"]["podIP"]).parse().unwrap(),
        labels: labels(&pod["metadata"]["labels"]),
        ports: ports
            .map(|port| {
                let number = port["containerPort"].as_u64().unwrap();
                (text(&port["name"]), u16::try_from(number).unwrap())
            })
            .collect(),
    }
}

/// The ports of a Service on one pod: number or name of the target port, or the port itself.
fn slice_ports(service: &Value, pod: &Value) -> Value {
    let named = info(pod).ports;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|port| {
        let target = &port["targetPort"];
        let target = if let Some(name) = target.as_str() {
            named.iter().find(|(n, _)| n == name)?.1.into()
        } else if target.is_null() {
            port["port"].clone()
        } else {
            target.clone()
        };
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let mut slice_port = json!({"name": text(&port["name"]), "port": target, "protocol": protocol});
        if let Some(app_protocol) = port["appProtocol"].as_str() {
            slice_port["appProtocol"] = app_protocol.into();
        }
        Some(slice_port)
    });
    ports.collect()
}

fn endpoint(service: &Value, pod: &Value) -> Value {
    let (ready, terminating) = (ready(pod), deleting(pod));
    let publish_all = service["spec"]["publishNotReadyAddresses"] == true;
    let pod = info(pod);
    json!({
        "addresses": [pod.ip.to_string()],
        "conditions": {
            "ready": publish_all || (ready && !terminating), "serving": ready, "terminating": terminating,
        },
        "nodeName": "node-1",
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    })
}

fn new_slice(namespace: &str, service: &str, number: usize, address_type: &str, ports: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", hash(&number.to_string(), 5)), "namespace": namespace,
            "labels": {
                SERVICE_NAME: service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": address_type, "ports": ports,
    })
}
