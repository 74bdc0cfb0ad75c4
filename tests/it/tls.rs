//! Certificates from Secrets: each watched alone, against an API server that misbehaves, up to the handshake
//! (contract §2 `tls`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::pki_types::ServerName;
use serde_json::json;
use serinus::kubernetes::{
    ClusterAccess, SECRET_PERMISSION, SecretNews, WatchEvent, connect_with, watch_secrets,
};
use serinus::model::{CertificateSource, ListenerTls, MinTls, Problem, SecretData, SecretKey};
use serinus::telemetry::Telemetry;
use serinus::tls::{Hindrance, Store};
use tempfile::TempPath;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::support::apiserver::{ApiServer, USER};
use crate::support::certificates::{Authority, Issued, base64};
use crate::support::stack::{cluster_config, start_router};
use crate::support::watching::QUICK;
use crate::support::{PATIENCE, eventually};

/// What has been told of Secrets, added up.
#[derive(Clone, Debug, Default)]
struct View {
    told: Vec<(SecretKey, SecretNews)>,
    /// Nothing for one that does not exist.
    data: BTreeMap<String, Option<Arc<SecretData>>>,
    troubles: BTreeMap<String, Problem>,
    unreadable: BTreeMap<String, Problem>,
}

impl View {
    fn tell(&mut self, key: SecretKey, news: SecretNews) {
        let name = key.to_string();
        let note = |problems: &mut BTreeMap<_, _>, problem| match problem {
            Some(problem) => drop(problems.insert(name.clone(), problem)),
            None => drop(problems.remove(&name).expect("it was told before")),
        };
        self.told.push((key, news.clone()));
        match news {
            SecretNews::Data(data) => drop(self.data.insert(name, Some(data))),
            SecretNews::Gone => drop(self.data.insert(name, None)),
            SecretNews::Trouble(problem) => note(&mut self.troubles, problem),
            SecretNews::Unreadable(problem) => note(&mut self.unreadable, problem),
        }
    }

    /// Whether a Secret holds a certificate.
    fn has(&self, name: &str, issued: &Issued) -> bool {
        let data = self.data.get(name).and_then(Option::as_ref);
        data.is_some_and(|data| {
            let key = data.key.as_ref().map(|key| key.as_slice());
            data.certificate.as_deref() == Some(issued.chain.as_bytes()) && key == Some(issued.key.as_bytes())
        })
    }

    fn is_gone(&self, name: &str) -> bool {
        self.data.get(name) == Some(&None)
    }
}

/// A running watch of Secrets, whose news also go into a store.
struct Watching {
    view: Arc<Mutex<View>>,
    telemetry: Arc<Telemetry>,
    wanted: watch::Sender<Arc<BTreeSet<SecretKey>>>,
    tasks: [JoinHandle<()>; 2],
    _kubeconfig: TempPath,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn keys(names: &[&str]) -> Arc<BTreeSet<SecretKey>> {
    Arc::new(names.iter().map(|name| name.parse().unwrap()).collect())
}

impl Watching {
    async fn start(api: &ApiServer, names: &[&str]) -> Self {
        Self::start_with(api, names, None).await
    }

    async fn start_with(api: &ApiServer, names: &[&str], store: Option<Arc<Store>>) -> Self {
        let kubeconfig = api.kubeconfig();
        let access = ClusterAccess { kubeconfig: Some(kubeconfig.to_path_buf()), context: None };
        let client = connect_with(&access, QUICK).await.unwrap();
        let (wanted, receiver) = watch::channel(keys(names));
        let (out, mut events) = mpsc::channel(1);
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let view: Arc<Mutex<View>> = Arc::default();
        let reader = {
            let view = Arc::clone(&view);
            async move {
                while let Some(event) = events.recv().await {
                    let WatchEvent::Secret { key, news } = event else { panic!("{event:?}") };
                    if let Some(store) = &store {
                        tell(store, &key, news.clone());
                    }
                    view.lock().unwrap().tell(key, news);
                }
            }
        };
        let watching = tokio::spawn(watch_secrets(client, receiver, out, Arc::clone(&telemetry)));
        Self { view, telemetry, wanted, tasks: [watching, tokio::spawn(reader)], _kubeconfig: kubeconfig }
    }

    fn now(&self) -> View {
        self.view.lock().unwrap().clone()
    }

    async fn until(&self, what: &str, met: impl Fn(&View) -> bool) -> View {
        eventually(what, || Some(self.now()).filter(&met)).await
    }

    /// The gauge; nothing where it is not there.
    fn connected(&self) -> Option<u64> {
        let text = self.telemetry.text();
        let value =
            text.lines().find_map(|l| l.strip_prefix("serinus_watch_connected{kind=\"secrets\"} "))?;
        Some(value.parse().unwrap())
    }
}

fn tell(store: &Store, key: &SecretKey, news: SecretNews) {
    match news {
        SecretNews::Data(data) => store.secret(key, Some(data)),
        SecretNews::Gone => store.secret(key, None),
        SecretNews::Trouble(problem) => store.secret_trouble(key, Hindrance::Watch, problem),
        SecretNews::Unreadable(problem) => store.secret_trouble(key, Hindrance::Content, problem),
    }
}

async fn settled(api: &ApiServer, watches: usize) {
    eventually("open watches", || (api.open_watches("secrets") == watches).then_some(())).await;
}

#[tokio::test]
async fn each_secret_is_asked_for_by_its_name_alone() {
    let api = ApiServer::start().await;
    let authority = Authority::new("a");
    let (shop, other) = (authority.issue(&["shop.example"]), authority.issue(&["other.example"]));
    api.apply(shop.secret("web", "shop-tls"));
    api.apply(other.secret("web", "other-tls"));
    let watching = Watching::start(&api, &["web/shop-tls", "far/mesh"]).await;
    watching.until("both", |view| view.has("web/shop-tls", &shop) && view.is_gone("far/mesh")).await;
    settled(&api, 2).await;
    // The API server knows of a watch before its watcher does.
    eventually("both are connected", || (watching.connected() == Some(1)).then_some(())).await;
    let made: BTreeSet<_> = api
        .requests()
        .into_iter()
        .map(|r| (r.verb, r.group, r.resource, r.namespace.unwrap(), r.fields.unwrap(), r.labels))
        .collect();
    let mut expected = BTreeSet::new();
    for verb in SECRET_PERMISSION.verbs {
        for (namespace, name) in [("web", "shop-tls"), ("far", "mesh")] {
            let (group, resource) = (SECRET_PERMISSION.api_group, SECRET_PERMISSION.resource);
            expected.insert((
                *verb,
                group,
                resource,
                namespace.to_owned(),
                format!("metadata.name={name}"),
                None,
            ));
        }
    }
    assert_eq!(made, expected);
    let told = format!("{:?}", watching.now());
    let key_line = shop.key.lines().nth(1).unwrap();
    assert!(told.contains("shop-tls") && !told.contains(key_line), "{told}");
    assert!(!told.contains("other-tls"), "{told}");
}

#[tokio::test]
async fn a_secret_is_told_as_it_comes_changes_and_goes() {
    let api = ApiServer::start().await;
    let authority = Authority::new("a");
    let watching = Watching::start(&api, &["web/shop-tls"]).await;
    watching.until("that there is none", |view| view.is_gone("web/shop-tls")).await;
    settled(&api, 1).await;
    for _ in 0..2 {
        let issued = authority.issue(&["shop.example"]);
        api.apply(issued.secret("web", "shop-tls"));
        watching.until("the Secret", |view| view.has("web/shop-tls", &issued)).await;
    }
    api.delete("secrets", "web", "shop-tls");
    watching.until("its end", |view| view.is_gone("web/shop-tls")).await;
    assert_eq!(watching.now().told.len(), 4, "{:?}", watching.now());
    assert_eq!(api.count("list", "secrets"), 1);
}

#[tokio::test]
async fn an_api_server_that_is_gone_or_has_forgotten_takes_nothing_away() {
    let mut api = ApiServer::start().await;
    let authority = Authority::new("a");
    let first = authority.issue(&["shop.example"]);
    api.apply(first.secret("web", "shop-tls"));
    let watching = Watching::start(&api, &["web/shop-tls"]).await;
    watching.until("the Secret", |view| view.has("web/shop-tls", &first)).await;
    settled(&api, 1).await;

    api.stop().await;
    let view = watching.until("trouble", |view| !view.troubles.is_empty()).await;
    let problem = view.troubles["web/shop-tls"].to_string();
    assert!(problem.contains("refuses connections"), "{problem}");
    assert_eq!(watching.connected(), Some(0));
    let second = authority.issue(&["shop.example"]);
    api.apply(second.secret("web", "shop-tls"));
    api.compact();
    api.restart_on_same_port().await;
    watching
        .until("the next one", |view| view.has("web/shop-tls", &second) && view.troubles.is_empty())
        .await;
    settled(&api, 1).await;
    eventually("the gauge", || (watching.connected() == Some(1)).then_some(())).await;
    assert!(!watching.now().told.iter().any(|(_, news)| *news == SecretNews::Gone), "{:?}", watching.now());
}

#[tokio::test]
async fn a_missing_right_is_named_and_found_when_it_is_given() {
    let api = ApiServer::start().await;
    let issued = Authority::new("a").issue(&["shop.example"]);
    api.apply(issued.secret("web", "shop-tls"));
    api.deny("list", "secrets");
    let watching = Watching::start(&api, &["web/shop-tls"]).await;
    let view = watching.until("trouble", |view| !view.troubles.is_empty()).await;
    let problem = view.troubles["web/shop-tls"].to_string();
    for needle in [
        "to list secrets named shop-tls in namespace web (403".to_owned(),
        format!("`kubectl auth can-i list secrets/shop-tls -n web --as={USER}`"),
        "deploy/secrets".to_owned(),
    ] {
        assert!(problem.contains(&needle), "{needle}: {problem}");
    }
    api.allow("list", "secrets");
    watching.until("the Secret", |view| view.has("web/shop-tls", &issued) && view.troubles.is_empty()).await;
}

#[tokio::test]
async fn a_secret_that_does_not_decode_stays_as_it_was_and_shows_nothing() {
    let api = ApiServer::start().await;
    let issued = Authority::new("a").issue(&["shop.example"]);
    api.apply(issued.secret("web", "shop-tls"));
    let watching = Watching::start(&api, &["web/shop-tls"]).await;
    watching.until("the Secret", |view| view.has("web/shop-tls", &issued)).await;
    settled(&api, 1).await;
    for garbage in [json!({"data": "hidden-text"}), json!({"data": {"tls.key": "hidden-text!"}})] {
        api.send_garbage_object("secrets", "web", "shop-tls", &garbage);
        let view = watching.until("a problem", |view| !view.unreadable.is_empty()).await;
        let problem = view.unreadable["web/shop-tls"].to_string();
        assert!(problem.contains("secrets web/shop-tls does not decode"), "{problem}");
        assert!(!format!("{view:?}").contains("hidden"), "{view:?}");
        assert!(view.has("web/shop-tls", &issued));
        api.delete("secrets", "web", "shop-tls");
        watching.until("its end", |view| view.is_gone("web/shop-tls") && view.unreadable.is_empty()).await;
        api.apply(issued.secret("web", "shop-tls"));
        watching.until("the Secret again", |view| view.has("web/shop-tls", &issued)).await;
    }
}

#[tokio::test]
async fn what_is_wanted_changes_while_it_runs() {
    let api = ApiServer::start().await;
    let issued = Authority::new("a").issue(&["shop.example"]);
    let watching = Watching::start(&api, &[]).await;
    assert_eq!(watching.connected(), None);
    for name in ["one", "two"] {
        api.apply(issued.secret("web", name));
    }
    watching.wanted.send_replace(keys(&["web/one"]));
    watching.until("the first", |view| view.has("web/one", &issued)).await;
    settled(&api, 1).await;
    watching.wanted.send_replace(keys(&["web/one", "web/two"]));
    watching.until("the second", |view| view.has("web/two", &issued)).await;
    settled(&api, 2).await;
    assert_eq!(api.count("list", "secrets"), 2, "the first goes on as it was");
    watching.wanted.send_replace(keys(&["web/two"]));
    settled(&api, 1).await;
    watching.wanted.send_replace(keys(&[]));
    settled(&api, 0).await;
    eventually("the gauge", || (watching.connected() == Some(1)).then_some(())).await;
}

/// Takes TLS connections with what a listener has at each moment, and sends back what comes.
async fn echo(store: Arc<Store>) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let certificates = store.listener("web").unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let config = certificates.server_config(true);
            tokio::spawn(async move {
                let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else {
                    return;
                };
                let mut bytes = [0; 16];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..read]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, serving)
}

type Client = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(address: std::net::SocketAddr, authority: &Authority) -> std::io::Result<Client> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("shop.example").unwrap();
    tokio_rustls::TlsConnector::from(authority.client()).connect(name, stream).await
}

async fn talk(client: &mut Client) {
    client.write_all(b"hello").await.unwrap();
    client.flush().await.unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn a_renewed_secret_reaches_new_connections_and_open_ones_go_on() {
    let api = ApiServer::start().await;
    let (authority, next) = (Authority::new("a"), Authority::new("b"));
    let certificates = vec![CertificateSource::Secret("web/shop-tls".parse().unwrap())];
    let tls = ListenerTls { certificates, min_version: MinTls::Tls12, client_auth: None };
    let store = Store::new([("web", &tls)].into_iter(), [].iter()).unwrap();
    let _watching = Watching::start_with(&api, &["web/shop-tls"], Some(Arc::clone(&store))).await;
    let (address, serving) = echo(Arc::clone(&store)).await;
    assert!(connect(address, &authority).await.is_err(), "there is no certificate yet");
    let mut reports = store.reports();
    let mut until_well = async || {
        let well = reports.wait_for(|report| report.problems.is_empty() && !report.loaded.is_empty());
        tokio::time::timeout(PATIENCE, well).await.expect("a certificate").unwrap().clone()
    };

    api.apply(authority.issue(&["shop.example"]).secret("web", "shop-tls"));
    until_well().await;
    let mut open = connect(address, &authority).await.unwrap();
    talk(&mut open).await;

    // Signed by somebody else, so that only who is shown the new one gets in.
    api.apply(next.issue(&["shop.example"]).secret("web", "shop-tls"));
    let shown = async {
        loop {
            match connect(address, &next).await {
                Ok(new) => return new,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut new = tokio::time::timeout(PATIENCE, shown).await.expect("the new certificate is shown");
    talk(&mut new).await;
    talk(&mut open).await;

    api.delete("secrets", "web", "shop-tls");
    let mut reports = store.reports();
    let told = reports.wait_for(|report| report.problems.iter().any(|p| p.message.contains("was deleted")));
    tokio::time::timeout(PATIENCE, told).await.expect("a problem").unwrap();
    talk(&mut connect(address, &next).await.unwrap()).await;
    talk(&mut open).await;
    serving.abort();
}

/// A config whose listener and route take what they need from Secrets.
fn config(kubeconfig: &Path, folder: &Path, route_tls: &str) -> String {
    let routes =
        format!("  - {{name: shop, service: web/shop, port: 80, versions: [{{name: v1}}]{route_tls}}}\n");
    cluster_config(kubeconfig, folder, &routes).replace(
        "address: '127.0.0.1:0'}]",
        "address: '127.0.0.1:0', tls: {certificates: [{secret: web/shop-tls}]}}]",
    )
}

#[tokio::test]
async fn a_router_follows_the_secrets_that_its_config_names_and_tells_of_them() {
    let api = ApiServer::start().await;
    let kubeconfig = api.kubeconfig();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, config(&kubeconfig, folder.path(), "")).unwrap();
    let router = start_router(file.clone()).await;
    let problems = || router.control().problems().iter().map(|p| format!("{p}\n")).collect::<String>();
    let problem = async |needle: &str, there: bool| {
        eventually(needle, || (problems().contains(needle) == there).then_some(())).await;
    };
    problem("listener `web`: there is no Secret web/shop-tls", true).await;

    let authority = Authority::new("a");
    api.apply(authority.issue(&["shop.example"]).secret("web", "shop-tls"));
    problem("Secret web/shop-tls", false).await;
    let sample = "serinus_certificate_expiry_seconds{listener=\"web\",source=\"secret:web/shop-tls\"} ";
    let expires = || {
        let text = router.telemetry().text();
        text.lines().find_map(|line| line.strip_prefix(sample)?.parse::<u64>().ok())
    };
    // The end of 4095, which is what a certificate has here that says nothing else.
    let ends = eventually("the metric", expires).await;
    assert!((67_000_000_000..68_000_000_000).contains(&ends), "{ends}");

    // A route that comes with a reload wants another.
    assert!(!api.requests().iter().any(|seen| seen.fields.as_deref() == Some("metadata.name=pods-ca")));
    std::fs::write(&file, config(&kubeconfig, folder.path(), ", upstreamTls: {caSecret: web/pods-ca}"))
        .unwrap();
    problem("`upstreamTls` of a route: there is no Secret web/pods-ca", true).await;
    api.apply(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pods-ca", "namespace": "web"},
        "data": {"ca.crt": base64("no certificate")},
    }));
    problem("`ca.crt` of Secret web/pods-ca has no certificate", true).await;
    // One that goes with a reload is no problem any more.
    std::fs::write(&file, config(&kubeconfig, folder.path(), "")).unwrap();
    problem("web/pods-ca", false).await;
    api.deny("list", "secrets");
    api.deny("watch", "secrets");
    api.cut_watches();
    problem("forbids to `system:serviceaccount:serinus:serinus` to watch secrets named shop-tls", true).await;
    assert!(expires().is_some(), "it stays in use");
    router.stop().await;
}

#[tokio::test]
async fn a_router_does_not_start_with_certificate_files_that_cannot_be_used_and_says_all() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let (one, other) = (authority.issue(&["a.example"]), authority.issue(&["a.example"]));
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.crt"), &one.chain).unwrap();
    std::fs::write(path("a.key"), &other.key).unwrap();
    let text = format!(
        "listeners: [{{name: web, address: '127.0.0.1:0', tls: {{certificates: [{{certFile: {0}/a.crt, keyFile: \
         {0}/a.key}}, {{certFile: {0}/b.crt, keyFile: {0}/b.key}}]}}}}]\n\
         admin: {{address: '127.0.0.1:0'}}\ndiscovery: {{static: {{}}}}\nroutes: []\n",
        folder.path().display()
    );
    let settings = serinus::config::parse("serinus.yaml", &text).unwrap_or_else(|e| panic!("{e}"));
    let error = serinus::cli::app::Router::start(settings, None).await.unwrap_err().to_string();
    for needle in ["a.key does not fit the certificate in", "b.crt cannot be read", "b.key cannot be read"] {
        assert!(error.contains(needle), "{needle}: {error}");
    }
}
