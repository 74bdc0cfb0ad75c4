//! `deploy/`: the objects that a cluster gets fit each other, the config in them, and what the code needs.
//!
//! The kustomizations are built here by a few lines that know the fields in use and refuse any other, so that no
//! tool is needed; `.ci/run` also builds them with kubectl where there is one.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::process::{say, serinus};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn every_overlay_builds_with_every_object_once() {
    for (name, objects) in builds() {
        let mut seen = BTreeSet::new();
        for object in &objects {
            assert!(seen.insert(id(object)), "{name}: {} twice", id(object));
            assert_eq!(
                text(object, "/metadata/labels/app.kubernetes.io~1name"),
                "serinus",
                "{name}: {}",
                id(object)
            );
        }
        for kind in
            ["Namespace", "ServiceAccount", "Deployment", "Service", "ConfigMap", "PodDisruptionBudget"]
        {
            one(&objects, kind);
        }
        one(&objects, "NetworkPolicy");
        assert!(all(&objects, "Secret").is_empty(), "{name}: a token that is shipped is no secret");
    }
}

/// A field that Kubernetes does not know would be dropped in silence: what comes back must be what went in.
#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for (name, objects) in builds() {
        for object in &objects {
            let back = match text(object, "/kind") {
                "Namespace" => through::<Namespace>(object),
                "ServiceAccount" => through::<ServiceAccount>(object),
                "ConfigMap" => through::<ConfigMap>(object),
                "Service" => through::<Service>(object),
                "Deployment" => through::<Deployment>(object),
                "PodDisruptionBudget" => through::<PodDisruptionBudget>(object),
                "NetworkPolicy" => through::<NetworkPolicy>(object),
                "Role" => through::<Role>(object),
                "RoleBinding" => through::<RoleBinding>(object),
                kind => panic!("{name}: a {kind}: add it to this test"),
            };
            assert_eq!(&back, object, "{name}: {}", id(object));
        }
    }
}

#[test]
fn references_lead_somewhere() {
    for (name, objects) in builds() {
        let namespace = text(one(&objects, "Namespace"), "/metadata/name").to_owned();
        for kind in
            ["ServiceAccount", "Deployment", "Service", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"]
        {
            assert_eq!(text(one(&objects, kind), "/metadata/namespace"), namespace, "{name}: {kind}");
        }
        let deployment = one(&objects, "Deployment");
        let labels = get(deployment, "/spec/template/metadata/labels");
        for (kind, selector) in [
            ("Deployment", "/spec/selector/matchLabels"),
            ("Service", "/spec/selector"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ] {
            assert_eq!(get(one(&objects, kind), selector), labels, "{name}: {kind} selects other pods");
        }
        let account = one(&objects, "ServiceAccount");
        assert_eq!(get(deployment, "/spec/template/spec/serviceAccountName"), get(account, "/metadata/name"));
        for binding in all(&objects, "RoleBinding") {
            let at = text(binding, "/metadata/namespace");
            let role = all(&objects, "Role").into_iter().find(|r| text(r, "/metadata/namespace") == at);
            assert_eq!(
                get(binding, "/roleRef/name"),
                get(role.expect("its Role"), "/metadata/name"),
                "{name}"
            );
            let subject = json!([{"kind": "ServiceAccount", "name": get(account, "/metadata/name"), "namespace": namespace}]);
            assert_eq!(get(binding, "/subjects"), &subject, "{name}");
        }
        let ports =
            list(container(&objects), "/ports").iter().map(|p| text(p, "/name")).collect::<BTreeSet<_>>();
        let policy = one(&objects, "NetworkPolicy");
        let used = list(policy, "/spec/ingress")
            .iter()
            .flat_map(|rule| list(rule, "/ports"))
            .map(|p| text(p, "/port"));
        assert_eq!(used.collect::<BTreeSet<_>>(), ports, "{name}: the policy's ports");
        assert!(ports.contains(text(one(&objects, "Service"), "/spec/ports/0/targetPort")), "{name}");
    }
}

#[test]
fn volumes_are_what_the_config_reads_and_writes() {
    for (name, objects) in builds() {
        let (config, container) = (config(&objects), container(&objects));
        let volumes = list(one(&objects, "Deployment"), "/spec/template/spec/volumes");
        let mounts = list(container, "/volumeMounts");
        let names =
            |list: &[Value]| list.iter().map(|v| text(v, "/name").to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(names(volumes), names(mounts), "{name}");
        // A subPath mount never sees the ConfigMap change.
        assert!(mounts.iter().all(|m| m.get("subPath").is_none()), "{name}");
        // The volume with `kind`, and where it is.
        let volume = |kind: &str| {
            let volume = volumes.iter().find(|v| v.get(kind).is_some()).expect(kind);
            let mount = mounts.iter().find(|m| m["name"] == volume["name"]).expect(kind);
            (&volume[kind], mount["mountPath"].as_str().expect("a path").to_owned())
        };
        let (map, at) = volume("configMap");
        assert_eq!(map["name"], *get(one(&objects, "ConfigMap"), "/metadata/name"), "{name}");
        assert_eq!(
            *get(container, "/args"),
            json!(["run", "--config", format!("{at}/serinus.yaml")]),
            "{name}"
        );
        let (secret, at) = volume("secret");
        let token = format!("{at}/{}", text(secret, "/items/0/path"));
        assert_eq!(text(&config, "/admin/tokenFile"), token, "{name}");
        assert_eq!(
            *get(container, "/env/0"),
            json!({"name": "SERINUS_TOKEN_FILE", "value": token}),
            "{name}"
        );
        assert_eq!(
            secret["defaultMode"],
            json!(0o440),
            "{name}: readable by the fsGroup, and by nobody else"
        );
        let writable = mounts.iter().filter(|m| m.get("readOnly") != Some(&json!(true))).count();
        assert_eq!(writable, 0, "{name}: nothing is written");
        assert!(config.pointer("/state/file").is_none(), "{name}: so the state neither");
    }
}

#[test]
fn ports_and_probes_are_those_of_the_config() {
    for (name, objects) in builds() {
        let (config, container) = (config(&objects), container(&objects));
        for (port, path) in [("http", "/listeners/0/address"), ("admin", "/admin/address")] {
            let address: SocketAddr = text(&config, path).parse().expect("HOST:PORT");
            assert!(address.ip().is_unspecified(), "{name}: other pods and the kubelet must reach {address}");
            let found = list(container, "/ports").iter().find(|p| p["name"] == port).expect(port);
            assert_eq!(found["containerPort"], json!(address.port()), "{name}");
        }
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(
                container[probe]["httpGet"],
                json!({"path": path, "port": "admin"}),
                "{name}: {probe}"
            );
        }
        let annotations = get(one(&objects, "Deployment"), "/spec/template/metadata/annotations");
        let admin = list(container, "/ports").iter().find(|p| p["name"] == "admin").expect("admin");
        assert_eq!(annotations["prometheus.io/port"], json!(admin["containerPort"].to_string()), "{name}");
        assert_eq!(annotations["prometheus.io/path"], "/metrics", "{name}");
    }
}

#[test]
fn a_pod_may_drain_before_it_is_killed() {
    for (name, objects) in builds() {
        let config = config(&objects);
        let time = |path| humantime::parse_duration(text(&config, path)).expect(path);
        let grace = get(one(&objects, "Deployment"), "/spec/template/spec/terminationGracePeriodSeconds");
        let grace = Duration::from_secs(grace.as_u64().expect("seconds"));
        assert!(grace > time("/drain/delay") + time("/drain/timeout"), "{name}: {grace:?}");
    }
}

#[test]
fn the_pod_has_no_right_that_it_does_not_need() {
    for (name, objects) in builds() {
        let pod = get(one(&objects, "Deployment"), "/spec/template/spec");
        let user = get(pod, "/securityContext");
        assert_eq!(user["runAsNonRoot"], json!(true), "{name}");
        assert_eq!(user["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        assert_eq!(user["fsGroup"], user["runAsGroup"], "{name}");
        let expected = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(*get(container(&objects), "/securityContext"), expected, "{name}");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(field).is_none(), "{name}: {field}");
        }
        let enforce = "/metadata/labels/pod-security.kubernetes.io~1enforce";
        assert_eq!(text(one(&objects, "Namespace"), enforce), "restricted", "{name}");
        assert_eq!(
            *get(one(&objects, "ServiceAccount"), "/automountServiceAccountToken"),
            json!(false),
            "{name}"
        );
    }
}

#[test]
fn one_pod_may_go_without_the_service_going() {
    for (name, objects) in builds() {
        let deployment = one(&objects, "Deployment");
        let replicas = get(deployment, "/spec/replicas").as_u64().expect("a number");
        let min = get(one(&objects, "PodDisruptionBudget"), "/spec/minAvailable").as_u64().expect("a number");
        assert!(replicas > min && min > 0, "{name}: {min} of {replicas}: a node could never be drained");
        let update = get(deployment, "/spec/strategy/rollingUpdate");
        assert_eq!(*update, json!({"maxUnavailable": 0, "maxSurge": 1}), "{name}");
        assert!(deployment.pointer("/spec/template/spec/affinity/podAntiAffinity").is_some(), "{name}");
    }
}

/// Group, resource and verb.
type Right = [String; 3];

/// What these permissions are, written as a Role has them.
fn rights(permissions: &[serinus::kubernetes::Permission]) -> BTreeSet<Right> {
    let verbs = permissions
        .iter()
        .flat_map(|p| p.verbs.iter().map(|verb| [p.api_group, p.resource, verb].map(str::to_owned)));
    verbs.collect()
}

/// What a rule grants.
fn granted(rule: &Value) -> BTreeSet<Right> {
    let words = |path| list(rule, path).iter().map(|word| text(word, "").to_owned()).collect::<Vec<String>>();
    let mut granted = BTreeSet::new();
    for group in words("/apiGroups") {
        for resource in words("/resources") {
            for verb in words("/verbs") {
                granted.insert([group.clone(), resource.clone(), verb]);
            }
        }
    }
    granted
}

#[test]
fn rbac_grants_exactly_what_the_code_needs() {
    let needed = rights(serinus::kubernetes::PERMISSIONS);
    assert!(!needed.is_empty());
    for (name, objects) in builds() {
        let own = text(one(&objects, "Namespace"), "/metadata/name");
        let mut namespaces = BTreeSet::new();
        let of_routes = |role: &&Value| text(role, "/metadata/namespace") != own;
        for role in all(&objects, "Role").into_iter().filter(of_routes) {
            let rules = list(role, "/rules");
            assert!(rules.iter().all(|rule| rule.as_object().map(|r| r.len()) == Some(3)), "{name}: {role}");
            let granted: BTreeSet<_> = rules.iter().flat_map(granted).collect();
            assert_eq!(granted, needed, "{name}: deploy/watch/role.yaml against kubernetes::PERMISSIONS");
            namespaces.insert(text(role, "/metadata/namespace").to_owned());
        }
        let config = config(&objects);
        let routed =
            list(&config, "/routes").iter().map(|r| service(r).0.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(namespaces, routed, "{name}: a Role in each namespace that routes name, and in no other");
        assert!(!namespaces.contains(own), "{name}: nothing but the state is Serinus's own");
        assert_eq!(all(&objects, "RoleBinding").len(), namespaces.len() + 1, "{name}");
        assert!(all(&objects, "ClusterRole").is_empty(), "{name}: no right over the whole cluster");
    }
}

/// The replicas' state: where the config says, by the name that it says, as far as RBAC can restrict that.
#[test]
fn rbac_for_the_state_is_for_the_one_that_the_config_names() {
    for (name, objects) in builds() {
        let config = config(&objects);
        let (namespace, state) = text(&config, "/state/configMap").split_once('/').expect("NAMESPACE/NAME");
        let deployment = one(&objects, "Deployment");
        assert_eq!(text(deployment, "/metadata/namespace"), namespace, "{name}: in Serinus's own namespace");
        let here = |object: &&Value| text(object, "/metadata/namespace") == namespace;
        let roles: Vec<_> = all(&objects, "Role").into_iter().filter(here).collect();
        assert_eq!(roles.len(), 1, "{name}");
        let rules = list(roles[0], "/rules");
        let all_granted: BTreeSet<_> = rules.iter().flat_map(granted).collect();
        let needed = rights(serinus::kubernetes::STATE_PERMISSIONS);
        assert_eq!(all_granted, needed, "{name}: deploy/base/state-role.yaml against the code");
        for rule in rules {
            let by_name =
                granted(rule).iter().all(|[_, resource, verb]| resource == "configmaps" && verb != "create");
            let names = rule.get("resourceNames").cloned();
            assert_eq!(names, by_name.then(|| json!([state])), "{name}: {rule}");
        }
        // An apply would overwrite the state with what was shipped.
        assert_ne!(text(one(&objects, "ConfigMap"), "/metadata/name"), state, "{name}");
        let pod_name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        assert!(
            list(container(&objects), "/env").contains(&pod_name),
            "{name}: each replica has its own name"
        );
    }
}

/// `serinus check` needs no cluster, whatever the config does.
#[test]
fn the_configs_that_are_shipped_pass_the_check() {
    for dir in kustomizations() {
        let file = dir.join("serinus.yaml").display().to_string();
        say(serinus(&["check", &file])).done();
    }
}

/// The right to read Secrets is apart, for those that are named alone, and no installation has it by itself.
#[test]
fn rbac_for_secrets_is_apart_and_for_named_ones_alone() {
    let objects = build(&top().join("deploy/secrets"));
    for object in &objects {
        let back = match text(object, "/kind") {
            "Role" => through::<Role>(object),
            "RoleBinding" => through::<RoleBinding>(object),
            kind => panic!("a {kind}"),
        };
        assert_eq!(&back, object, "{}", id(object));
    }
    let (role, binding) = (one(&objects, "Role"), one(&objects, "RoleBinding"));
    let needed = serinus::kubernetes::SECRET_PERMISSION;
    let rule = json!({
        "apiGroups": [needed.api_group], "resources": [needed.resource], "verbs": needed.verbs,
        "resourceNames": ["shop-tls"],
    });
    assert_eq!(*get(role, "/rules"), json!([rule]));
    assert_eq!(get(binding, "/roleRef/name"), get(role, "/metadata/name"));
    assert_eq!(get(binding, "/metadata/namespace"), get(role, "/metadata/namespace"));
    for (name, objects) in builds() {
        let account = one(&objects, "ServiceAccount");
        let metadata = get(account, "/metadata");
        let subject =
            json!([{"kind": "ServiceAccount", "name": metadata["name"], "namespace": metadata["namespace"]}]);
        assert_eq!(*get(binding, "/subjects"), subject, "{name}");
        for role in all(&objects, "Role") {
            assert!(!get(role, "/rules").to_string().contains("secrets"), "{name}: {}", id(role));
        }
    }
}

/// Whether `labels` has all of `wanted`.
fn has_labels(labels: &Value, wanted: &Value) -> bool {
    wanted.as_object().expect("labels").iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// What Prometheus and Grafana are told fits what is installed.
#[test]
fn observability_fits_the_installation() {
    let objects = build(&top().join("deploy/observability"));
    let base = build(&top().join("deploy/base"));
    let mut seen = BTreeSet::new();
    for object in &objects {
        assert!(seen.insert(id(object)), "{} twice", id(object));
        assert!(!base.iter().any(|of_base| id(of_base) == id(object)), "{}: the base has it", id(object));
        assert_eq!(text(object, "/metadata/labels/app.kubernetes.io~1name"), "serinus", "{}", id(object));
        let namespace = text(one(&base, "Namespace"), "/metadata/name");
        assert_eq!(text(object, "/metadata/namespace"), namespace, "{}", id(object));
        match text(object, "/kind") {
            "Service" => assert_eq!(&through::<Service>(object), object),
            "ConfigMap" => assert_eq!(&through::<ConfigMap>(object), object),
            "ServiceMonitor" | "PrometheusRule" => {
                assert_eq!(text(object, "/apiVersion"), "monitoring.coreos.com/v1", "{}", id(object));
            }
            kind => panic!("a {kind}: add it to this test"),
        }
    }
    // From the monitor to the Service to the port of the pods.
    let (monitor, service) = (one(&objects, "ServiceMonitor"), one(&objects, "Service"));
    let (selector, labels) = (get(monitor, "/spec/selector/matchLabels"), get(service, "/metadata/labels"));
    assert!(has_labels(labels, selector), "{selector} of {labels}");
    assert!(
        !has_labels(get(one(&base, "Service"), "/metadata/labels"), selector),
        "the callers' Service has no metrics"
    );
    assert!(labels.get(text(monitor, "/spec/jobLabel")).is_some());
    let [endpoint] = list(monitor, "/spec/endpoints") else { panic!("one endpoint") };
    let [port] = list(service, "/spec/ports") else { panic!("one port") };
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&port["name"], &json!("/metrics")));
    let pods = get(one(&base, "Deployment"), "/spec/template/metadata/labels");
    assert_eq!(get(service, "/spec/selector"), pods);
    assert_eq!(get(service, "/spec/clusterIP"), "None");
    let of_pod = list(container(&base), "/ports").iter().find(|p| p["name"] == port["targetPort"]);
    assert_eq!(of_pod.expect("its port")["containerPort"], port["port"]);
}

/// Each alert says what is wrong and what to do, and where more is said; the documentation lists each.
#[test]
fn alerts_say_what_to_do() {
    let objects = build(&top().join("deploy/observability"));
    let docs = top().join("docs/operations.md");
    let page = fs::read_to_string(&docs).expect("docs/operations.md");
    let mut alerts = BTreeSet::new();
    for rule in list(one(&objects, "PrometheusRule"), "/spec/groups").iter().flat_map(|g| list(g, "/rules")) {
        let Some(name) = rule["alert"].as_str() else {
            assert!(rule["record"].is_string(), "neither an alert nor a record: {rule}");
            continue;
        };
        assert!(alerts.insert(name.to_owned()), "{name} twice");
        assert!(["critical", "warning", "info"].contains(&text(rule, "/labels/severity")), "{name}");
        for annotation in ["summary", "description"] {
            let said = text(rule, &format!("/annotations/{annotation}"));
            assert!(!said.trim().is_empty() && !said.contains('\n'), "{name}: {annotation}: {said}");
        }
        let (file, anchor) = text(rule, "/annotations/runbook").split_once('#').expect("FILE#HEADING");
        assert_eq!(file, "docs/operations.md", "{name}");
        assert!(crate::docs::has_anchor(&docs, anchor), "{name}: docs/operations.md has no #{anchor}");
    }
    let told = page.lines().filter_map(|line| line.strip_prefix("| `Serinus")?.split_once('`'));
    let told: BTreeSet<_> = told.map(|(name, _)| format!("Serinus{name}")).collect();
    assert_eq!(told, alerts, "left: docs/operations.md, right: deploy/observability/prometheusrule.yaml");
}

#[test]
fn the_dashboard_is_one_that_grafana_takes_in() {
    let objects = build(&top().join("deploy/observability"));
    let map = one(&objects, "ConfigMap");
    assert_eq!(text(map, "/metadata/labels/grafana_dashboard"), "1", "what its sidecar looks for");
    let dashboard: Value = serde_json::from_str(text(map, "/data/dashboard.json")).expect("JSON");
    let variables = list(&dashboard, "/templating/list");
    let variables: BTreeSet<_> = variables.iter().map(|variable| text(variable, "/name")).collect();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "/panels") {
        assert!(ids.insert(get(panel, "/id").as_u64()), "two panels of one id: {panel}");
        let place = ["x", "y", "w", "h"].map(|field| panel["gridPos"][field].as_u64().expect("a number"));
        let [x, y, w, h] = place;
        for (x, y) in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(x < 24 && places.insert((x, y)), "{}: over another", text(panel, "/title"));
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{panel}");
            let used = text(target, "/expr").split('$').skip(1);
            for used in used.map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()) {
                let used = used.expect("a name");
                assert!(used == "__rate_interval" || variables.contains(used), "${used}: {panel}");
            }
        }
    }
}

#[test]
fn every_config_is_one_that_serinus_takes() {
    for (name, objects) in builds() {
        let map = text(one(&objects, "ConfigMap"), "/data/serinus.yaml");
        let settings = serinus::config::parse("serinus.yaml", map).unwrap_or_else(|e| panic!("{name}:\n{e}"));
        let config = config(&objects);
        let asked: Vec<_> = list(&config, "/routes").iter().map(|r| text(r, "/name")).collect();
        let read: Vec<_> = settings.routes.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(read, asked, "{name}");
    }
}

#[test]
fn overlays_change_nothing_but_the_routes() {
    let settings = |objects: &[Value]| {
        let mut config = config(objects);
        config.as_object_mut().expect("a mapping").remove("routes");
        config
    };
    let base = settings(&build(&top().join("deploy/base")));
    for (name, objects) in builds() {
        assert_eq!(settings(&objects), base, "{name}");
    }
}

/// Each overlay's Service and port are in the manifest of the same name.
#[test]
fn overlays_fit_the_applications_they_are_for() {
    for dir in kustomizations().into_iter().filter(|dir| !dir.ends_with("base")) {
        let name = dir.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        let manifest = documents(&top().join("tests/fixtures/manifests").join(format!("{name}.yaml")));
        let config = config(&build(&dir));
        let routes = list(&config, "/routes");
        assert!(!routes.is_empty(), "{name}");
        for route in routes {
            let (namespace, service) = service(route);
            let found = all(&manifest, "Service")
                .into_iter()
                .find(|s| text(s, "/metadata/namespace") == namespace && text(s, "/metadata/name") == service)
                .unwrap_or_else(|| panic!("{name}: no Service {namespace}/{service} in its manifest"));
            let port = &route["port"];
            let fits = |p: &Value| p.get("name") == Some(port) || p["port"] == *port;
            assert!(list(found, "/spec/ports").iter().any(fits), "{name}: no port {port}");
        }
    }
}

#[test]
fn the_image_is_built_from_what_is_copied_and_named_alike() {
    let dockerfile = fs::read_to_string(top().join("deploy/Dockerfile")).expect("deploy/Dockerfile");
    let has =
        |line: &str| assert!(dockerfile.lines().any(|l| l == line), "deploy/Dockerfile: no line `{line}`");
    has("ENTRYPOINT [\"/usr/local/bin/serinus\"]");
    has("CMD [\"run\"]");
    has("COPY src src");
    assert!(dockerfile.contains(&format!("org.opencontainers.image.version=\"{VERSION}\"")));
    for (name, objects) in builds() {
        assert_eq!(text(container(&objects), "/image"), format!("serinus:{VERSION}"), "{name}");
        let user = get(one(&objects, "Deployment"), "/spec/template/spec/securityContext/runAsUser");
        has(&format!("USER {user}:{user}"));
    }
    // Cargo looks for a target whose path is not said, and does not find it where only src/ was copied.
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("Cargo.toml");
    for target in ["[[test]]", "[[bench]]", "[[example]]"] {
        for table in manifest.split(target).skip(1) {
            let table = table.split("\n[").next().unwrap_or_default();
            assert!(
                table.contains("\npath = "),
                "{target} without `path`, so that the image cannot be built: {table}"
            );
        }
    }
    // A file from elsewhere that the sources take in would be missing in the image's build.
    let mut folders = vec![top().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("src/") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                // Tests are not built there.
                folders.extend((!path.ends_with("tests")).then_some(path));
                continue;
            }
            if path
                .file_stem()
                .and_then(|s| s.to_str())
                .is_some_and(|s| s == "tests" || s.ends_with("_tests"))
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            for taken in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|m| text.split(m).skip(1)) {
                let taken = path.with_file_name(taken.split('"').next().unwrap_or_default());
                let taken = taken.canonicalize().expect("the file that is taken in");
                let src = top().join("src").canonicalize().expect("src/");
                assert!(
                    taken.starts_with(src),
                    "{}: takes in {}, not in the image's build",
                    path.display(),
                    taken.display()
                );
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- reading and building

pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folders that build to a whole installation: the base and every overlay.
fn kustomizations() -> Vec<PathBuf> {
    let overlays = fs::read_dir(top().join("deploy/overlays")).expect("deploy/overlays");
    let mut found: Vec<_> = overlays.map(|e| e.expect("an entry").path()).collect();
    assert!(found.len() >= 4, "an overlay for each of the four applications");
    found.push(top().join("deploy/base"));
    found.sort();
    found
}

/// Every installation: its name and its objects.
fn builds() -> Vec<(String, Vec<Value>)> {
    kustomizations().iter().map(|dir| (dir.display().to_string(), build(dir))).collect()
}

/// The fields of a kustomization that are in use here; kustomize knows more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    resources: Vec<String>,
    namespace: Option<String>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    namespace: Option<String>,
    behavior: Option<String>,
    files: Vec<String>,
    options: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    name: String,
    new_tag: String,
}

/// What `kubectl kustomize` makes of a folder.
pub(crate) fn build(dir: &Path) -> Vec<Value> {
    let file = dir.join("kustomization.yaml");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let k: Kustomization = yaml_serde::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    assert_eq!(
        (k.api_version.as_str(), k.kind.as_str()),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    );
    let mut objects = Vec::new();
    for resource in &k.resources {
        let path = dir.join(resource);
        objects.extend(if path.is_dir() { build(&path) } else { documents(&path) });
    }
    for generator in &k.config_map_generator {
        generate(dir, generator, &mut objects);
    }
    for object in &mut objects {
        if let Some(namespace) = k.namespace.as_ref().filter(|_| object["kind"] != "Namespace") {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let Some(containers) = object.pointer_mut("/spec/template/spec/containers") else { continue };
        for container in containers.as_array_mut().expect("a list") {
            if let Some(image) = k.images.iter().find(|i| container["image"] == json!(i.name)) {
                container["image"] = json!(format!("{}:{}", image.name, image.new_tag));
            }
        }
    }
    objects
}

fn generate(dir: &Path, generator: &Generator, objects: &mut Vec<Value>) {
    // A hash in the name would roll the pods where a reload is enough.
    assert_eq!(generator.options["disableNameSuffixHash"], json!(true), "{}", dir.display());
    let read = |file: &String| (file.clone(), json!(fs::read_to_string(dir.join(file)).expect(file)));
    let data: serde_json::Map<_, _> = generator.files.iter().map(read).collect();
    let old = objects
        .iter_mut()
        .find(|o| o["kind"] == "ConfigMap" && o["metadata"]["name"] == json!(generator.name));
    match (generator.behavior.as_deref(), old) {
        (None, None) => {
            let labels = generator.options["labels"].clone();
            let metadata = json!({"name": generator.name, "labels": labels});
            objects
                .push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
        }
        (Some("replace"), Some(old)) => {
            assert_eq!(
                old["metadata"]["namespace"],
                json!(generator.namespace),
                "{}: replaces another",
                dir.display()
            );
            old["data"] = Value::Object(data);
        }
        (behavior, old) => panic!("{}: {behavior:?} with {old:?}", dir.display()),
    }
}

/// The documents of a YAML file.
fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let read = |d| Value::deserialize(d).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    yaml_serde::Deserializer::from_str(&text).map(read).collect()
}

/// `object` read as a `T` and written again.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{}: {e}", id(object)));
    serde_json::to_value(read).expect("it can be written")
}

/// The router's config, as the ConfigMap carries it.
fn config(objects: &[Value]) -> Value {
    let text = text(one(objects, "ConfigMap"), "/data/serinus.yaml");
    yaml_serde::from_str(text).expect("the config is YAML")
}

/// A route's Service: namespace and name.
fn service(route: &Value) -> (&str, &str) {
    text(route, "/service").split_once('/').expect("NAMESPACE/NAME")
}

fn container(objects: &[Value]) -> &Value {
    let containers = list(one(objects, "Deployment"), "/spec/template/spec/containers");
    assert_eq!(containers.len(), 1);
    &containers[0]
}

fn all<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

pub(crate) fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = all(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn id(object: &Value) -> String {
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("-");
    format!("{} {namespace}/{}", text(object, "/kind"), text(object, "/metadata/name"))
}

fn get<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    get(value, path).as_str().unwrap_or_else(|| panic!("{path} is no text in {value:#}"))
}

pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    get(value, path).as_array().unwrap_or_else(|| panic!("{path} is no list in {value:#}"))
}
