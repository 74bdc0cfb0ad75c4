//! Tests of the store: what is in force, by handshakes in memory, while files and Secrets change.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::authority_tests::{Authority, Issued, client, client_of, handshake};
use super::super::{Alpn, TlsError};
use super::*;
use crate::model::{CertificateSource, ClientAuth, MinTls, PemSource};

/// More looks than there are doubts about a file that is being replaced.
const LOOKS: usize = 6;

fn listener(certificates: Vec<CertificateSource>) -> ListenerTls {
    ListenerTls { certificates, min_version: MinTls::Tls12, client_auth: None }
}

fn store(tls: &ListenerTls) -> Arc<Store> {
    Store::new([("web", tls)].into_iter(), [].iter()).unwrap()
}

fn web(store: &Store) -> Arc<ListenerCertificates> {
    store.listener("web").unwrap()
}

/// The certificate that a client gets for a name.
async fn shown(
    store: &Store,
    client: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<CertificateDer<'static>> {
    handshake(web(store).server_config(true), client, name).await.map(|open| open.shown())
}

fn problems(store: &Store) -> String {
    store.report.borrow().problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn secret(text: &str) -> SecretKey {
    text.parse().unwrap()
}

/// Looks as often as it takes for a doubt to become a problem.
fn look_long(store: &Store) {
    let looks = (0..LOOKS).filter(|_| store.look()).count();
    assert!(looks < LOOKS, "doubts end");
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let first = authority.issue(&["shop.example", "10.0.0.1"]);
    let second = authority.issue(&["*.api.example"]);
    let sources = vec![first.write(folder.path(), "first"), second.write(folder.path(), "second")];
    let store = store(&listener(sources));
    let client = Arc::new(client(&authority));
    assert_eq!(shown(&store, &client, "shop.example").await.unwrap(), first.der()[0]);
    assert_eq!(shown(&store, &client, "v1.api.example").await.unwrap(), second.der()[0]);
    // Without SNI, which an address has none of: the first.
    assert_eq!(shown(&store, &client, "10.0.0.1").await.unwrap(), first.der()[0]);
    // The first as well, and the client does not take it.
    let error = shown(&store, &client, "else.example").await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    assert_eq!(problems(&store), "");
    let mut sources: Vec<_> = store.expiries().into_iter().map(|(source, _)| source).collect();
    sources.sort();
    assert_eq!(
        sources,
        ["first", "second"].map(|name| folder.path().join(name).with_extension("crt").display().to_string())
    );

    let web = web(&store);
    assert!(web.same_certificate(Some("shop.example"), "shop.example"));
    assert!(web.same_certificate(Some("a.api.example"), "B.API.example"));
    assert!(!web.same_certificate(Some("a.api.example"), "shop.example"));
    assert!(!web.same_certificate(None, "a.api.example"));
    assert!(web.same_certificate(None, "10.0.0.1"));
}

#[tokio::test]
async fn alpn_and_versions_are_those_of_the_listener() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let source = authority.issue(&["a.example"]).write(folder.path(), "a");
    let store12 = store(&listener(vec![source.clone()]));
    let store13 = store(&ListenerTls { min_version: MinTls::Tls13, ..listener(vec![source]) });
    let ask = async |store: &Store, http2: bool, versions, offers: &[&str]| {
        let mut client = client_of(&authority, versions, None);
        client.alpn_protocols = offers.iter().map(|offer| offer.as_bytes().to_vec()).collect();
        let open = handshake(web(store).server_config(http2), &Arc::new(client), "a.example").await;
        open.map(|open| open.alpn().map(str::to_owned))
    };
    let (any, old) = (rustls::ALL_VERSIONS, &[&rustls::version::TLS12][..]);
    let both = ["http/1.1", "h2"];
    assert_eq!(ask(&store12, true, any, &both).await.unwrap().as_deref(), Some("h2"));
    assert_eq!(ask(&store12, false, any, &both).await.unwrap().as_deref(), Some("http/1.1"));
    assert_eq!(ask(&store12, true, old, &["http/1.1"]).await.unwrap().as_deref(), Some("http/1.1"));
    assert_eq!(ask(&store12, true, old, &[]).await.unwrap(), None);
    assert!(ask(&store12, false, any, &["h2"]).await.is_err(), "nothing in common");
    assert!(ask(&store12, true, any, &["acme-tls/1"]).await.is_err(), "nothing in common");
    assert!(ask(&store13, true, any, &both).await.is_ok());
    let error = ask(&store13, true, old, &both).await.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

/// A hello of TLS 1.1 (RFC 4346 §7.4.1.2), byte by byte: no library here speaks it any more.
#[tokio::test]
async fn tls_1_1_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = Authority::new("a").issue(&["a.example"]).write(folder.path(), "a");
    let store = store(&listener(vec![source]));
    // Without and with signature_algorithms (RFC 5246 §7.4.1.4.1), which a client that could do better sends: a fatal
    // alert, handshake_failure (40) or protocol_version (70).
    for (extensions, alert) in [(&[][..], 40), (&[0, 8, 0, 13, 0, 4, 0, 2, 4, 3], 70)] {
        let mut hello = vec![3, 2];
        hello.extend([7; 32]);
        // No session; AES-128-CBC with RSA and ECDHE; no compression.
        hello.extend([0, 0, 4, 0, 0x2f, 0xc0, 0x13, 1, 0]);
        hello.extend(extensions);
        let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
        record.extend(hello);
        let (mut near, far) = tokio::io::duplex(4096);
        near.write_all(&record).await.unwrap();
        let config = web(&store).server_config(true);
        let error = tokio_rustls::TlsAcceptor::from(config).accept(far).await.unwrap_err();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!((answer.first(), &answer[5..]), (Some(&21), [2, alert].as_slice()), "{error}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_drops_no_open_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let old = authority.issue(&["a.example"]);
    let store = store(&listener(vec![old.write(folder.path(), "a")]));
    let client = Arc::new(client(&authority));
    let mut open = handshake(web(&store).server_config(true), &client, "a.example").await.unwrap();
    let held = web(&store);
    let mut reports = store.reports();
    reports.mark_unchanged();

    let new = authority.issue(&["a.example", "b.example"]);
    new.write(folder.path(), "a");
    assert!(!store.look());
    assert_eq!(open.shown(), old.der()[0]);
    open.talk().await.unwrap();
    assert_eq!(shown(&store, &client, "b.example").await.unwrap(), new.der()[0]);
    let again = handshake(held.server_config(true), &client, "b.example").await.unwrap();
    assert_eq!(again.shown(), new.der()[0], "whoever keeps the listener's part sees the new one");
    assert!(reports.has_changed().unwrap());
    assert_eq!(reports.borrow_and_update().loaded[0].names, ["a.example", "b.example"]);
    // What is the same is not told again.
    store.look();
    assert!(!reports.has_changed().unwrap());
}

#[tokio::test]
async fn a_broken_renewal_changes_nothing_and_is_told_and_a_good_one_ends_that() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let old = authority.issue(&["a.example"]);
    let new = authority.issue(&["a.example"]);
    let store = store(&listener(vec![old.write(folder.path(), "a")]));
    let client = Arc::new(client(&authority));
    let path = |end: &str| folder.path().join(format!("a.{end}"));
    let half = Issued { key: new.key[..60].to_owned(), ..new.clone() };
    let crossed = Issued { key: old.key.clone(), ..new.clone() };
    let expired = authority.issue_with(&["a.example"], |p| p.not_after = rcgen::date_time_ymd(2001, 1, 1));
    for (broken, needle) in [
        (&half, "has no private key, or it is cut short; the one before stays in use"),
        (&crossed, "does not fit the certificate"),
        (&expired, "has expired on 2001-01-01"),
    ] {
        broken.write(folder.path(), "a");
        assert!(store.look(), "it may be in the middle of being replaced");
        assert_eq!(problems(&store), "", "a doubt is no problem yet");
        look_long(&store);
        let told = problems(&store);
        assert!(told.contains(needle) && told.contains("listener `web`"), "{told}");
        assert_eq!(shown(&store, &client, "a.example").await.unwrap(), old.der()[0]);
        old.write(folder.path(), "a");
        store.look();
        assert_eq!(problems(&store), "");
    }
    std::fs::remove_file(path("key")).unwrap();
    look_long(&store);
    assert!(problems(&store).contains("a.key cannot be read: No such file"), "{}", problems(&store));
    new.write(folder.path(), "a");
    store.look();
    assert_eq!(problems(&store), "");
    assert_eq!(shown(&store, &client, "a.example").await.unwrap(), new.der()[0]);
}

#[test]
fn a_listener_that_cannot_have_its_files_says_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let (one, other) = (authority.issue(&["a.example"]), authority.issue(&["b.example"]));
    let crossed = Issued { key: other.key, ..one }.write(folder.path(), "crossed");
    let none = CertificateSource::Files { cert: "/nowhere/tls.crt".into(), key: "/nowhere/tls.key".into() };
    let ca = folder.path().join("ca.crt");
    std::fs::write(&ca, "no authority").unwrap();
    let auth = ClientAuth { ca: PemSource::File(ca), required: true };
    let web = listener(vec![crossed, none.clone()]);
    let api = ListenerTls { client_auth: Some(auth), ..listener(vec![none]) };
    let errors = Store::new([("web", &web), ("api", &api)].into_iter(), [].iter()).unwrap_err();
    let said = errors.to_string();
    for needle in [
        "listener `web`: the key in",
        "listener `api`, listener `web`: the file /nowhere/tls.crt cannot be read: No such file",
        "listener `api`, listener `web`: the file /nowhere/tls.key",
        "listener `api`:",
        "ca.crt has no certificate",
    ] {
        assert!(said.contains(needle), "{needle}:\n{said}");
    }
    assert_eq!((errors.problems().len(), said.lines().count()), (4, 4), "each once:\n{said}");
}

#[tokio::test]
async fn an_expired_certificate_is_better_than_none_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let expired =
        Authority::new("a").issue_with(&["a.example"], |p| p.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let store = store(&listener(vec![expired.write(folder.path(), "a")]));
    let told = problems(&store);
    assert!(told.contains("a.crt (listener `web`) has expired on 2001-01-01"), "{told}");
    assert_eq!(store.expiries().len(), 1);
}

#[test]
fn a_certificate_gets_old_while_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let issued = Authority::new("a").ending(&["a.example"], now, 30 * day);
    let store = store(&listener(vec![issued.write(folder.path(), "a")]));
    assert_eq!(problems(&store), "");
    store.look_at(now + 22 * day);
    assert_eq!(problems(&store), "");
    store.look_at(now + 24 * day);
    assert!(problems(&store).contains("in less than 7 days"), "{}", problems(&store));
    store.look_at(now + 31 * day);
    assert!(problems(&store).contains("has expired"), "{}", problems(&store));
}

#[tokio::test]
async fn without_its_secret_a_listener_refuses_until_it_comes() {
    let authority = Authority::new("a");
    let key = secret("web/shop-tls");
    let store = store(&listener(vec![CertificateSource::Secret(key.clone())]));
    assert_eq!(*store.wanted_secrets().borrow().clone(), BTreeSet::from([key.clone()]));
    let client = Arc::new(client(&authority));
    assert!(shown(&store, &client, "a.example").await.is_err());
    let told = problems(&store);
    assert!(told.contains("listener `web`: nothing has been heard of the Secret web/shop-tls yet"), "{told}");

    store.secret(&key, None);
    assert!(problems(&store).contains("there is no Secret web/shop-tls"), "{}", problems(&store));
    assert!(problems(&store).contains("kubectl -n web create secret tls shop-tls"), "{}", problems(&store));
    let first = authority.issue(&["a.example"]);
    let no_key = SecretData { key: None, ..(*first.secret()).clone() };
    store.secret(&key, Some(Arc::new(no_key)));
    assert!(problems(&store).contains("the Secret web/shop-tls has no `tls.key`"), "{}", problems(&store));
    assert!(shown(&store, &client, "a.example").await.is_err());

    store.secret(&key, Some(first.secret()));
    assert_eq!(problems(&store), "");
    assert_eq!(shown(&store, &client, "a.example").await.unwrap(), first.der()[0]);
    assert_eq!(store.expiries()[0].0, "secret:web/shop-tls");

    // Deleted: what was in it stays.
    store.secret(&key, None);
    assert!(problems(&store).contains("was deleted; what was in it stays in use"), "{}", problems(&store));
    assert_eq!(shown(&store, &client, "a.example").await.unwrap(), first.der()[0]);
    // Broken: the same, and it is not doubted, for a Secret is replaced whole.
    let second = authority.issue(&["a.example"]);
    let crossed = Issued { key: first.key.clone(), ..second.clone() };
    store.secret(&key, Some(crossed.secret()));
    let told = problems(&store);
    assert!(
        told.contains("`tls.key` of Secret web/shop-tls does not fit") && !told.contains("deleted"),
        "{told}"
    );
    assert_eq!(shown(&store, &client, "a.example").await.unwrap(), first.der()[0]);
    store.secret(&key, Some(second.secret()));
    assert_eq!(problems(&store), "");
    assert_eq!(shown(&store, &client, "a.example").await.unwrap(), second.der()[0]);
    // Of another that nobody wants.
    store.secret(&secret("web/other"), Some(first.secret()));
    assert_eq!(problems(&store), "");
}

#[test]
fn what_hinders_a_watch_is_told_until_it_is_over() {
    let key = secret("web/shop-tls");
    let store = store(&listener(vec![CertificateSource::Secret(key.clone())]));
    store.secret(&key, Some(Authority::new("a").issue(&["a.example"]).secret()));
    for hindrance in [Hindrance::Watch, Hindrance::Content] {
        let problem = Problem::new(format!("{hindrance:?}"), "wait");
        store.secret_trouble(&key, hindrance, Some(problem));
    }
    assert_eq!(problems(&store), "Content: wait\nWatch: wait\n");
    store.secret_trouble(&key, Hindrance::Content, None);
    assert_eq!(problems(&store), "Watch: wait\n");
    store.secret_trouble(&key, Hindrance::Watch, None);
    assert_eq!(problems(&store), "");
}

fn authorities(folder: &Path, authority: &Authority) -> PemSource {
    let file = folder.join("clients.crt");
    std::fs::write(&file, authority.pem()).unwrap();
    PemSource::File(file)
}

#[tokio::test]
async fn clients_show_a_certificate_where_they_must_or_may() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, clients, strangers) = (Authority::new("a"), Authority::new("c"), Authority::new("s"));
    let source = authority.issue(&["a.example"]).write(folder.path(), "a");
    let (known, unknown) = (clients.issue(&["me"]), strangers.issue(&["me"]));
    for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
        for required in [true, false] {
            let auth = ClientAuth { ca: authorities(folder.path(), &clients), required };
            let tls = ListenerTls { client_auth: Some(auth), ..listener(vec![source.clone()]) };
            let store = store(&tls);
            let ask = async |own| {
                let client = Arc::new(client_of(&authority, &versions, own));
                handshake(web(&store).server_config(true), &client, "a.example").await
            };
            let open = ask(Some(&known)).await.unwrap();
            assert_eq!(open.server.get_ref().1.peer_certificates().unwrap(), known.der());
            assert!(ask(Some(&unknown)).await.is_err(), "signed by nobody who may");
            let without = ask(None).await;
            assert_eq!(without.is_err(), required, "{:?}", without.err());
        }
    }
}

#[tokio::test]
async fn other_authorities_of_clients_count_for_resumed_sessions_too() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, before, after) = (Authority::new("a"), Authority::new("before"), Authority::new("after"));
    let source = authority.issue(&["a.example"]).write(folder.path(), "a");
    let auth = ClientAuth { ca: authorities(folder.path(), &before), required: true };
    let store = store(&ListenerTls { client_auth: Some(auth), ..listener(vec![source]) });
    for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
        authorities(folder.path(), &before);
        store.look();
        let own = before.issue(&["me"]);
        // It keeps the sessions that it may resume.
        let client = Arc::new(client_of(&authority, &versions, Some(&own)));
        let ask = async || handshake(web(&store).server_config(true), &client, "a.example").await;
        ask().await.unwrap();
        let resumed = ask().await.unwrap();
        assert_eq!(resumed.client.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));

        authorities(folder.path(), &after);
        store.look();
        assert!(ask().await.is_err(), "its authority is none any more");
        let own = after.issue(&["me"]);
        let client = Arc::new(client_of(&authority, &versions, Some(&own)));
        handshake(web(&store).server_config(true), &client, "a.example").await.unwrap();
    }
    assert_eq!(problems(&store), "");
}

#[tokio::test]
async fn a_listener_without_the_authorities_of_its_clients_lets_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let source = authority.issue(&["a.example"]).write(folder.path(), "a");
    let key = secret("web/clients");
    let auth = ClientAuth { ca: PemSource::Secret(key.clone()), required: false };
    let store = store(&ListenerTls { client_auth: Some(auth), ..listener(vec![source]) });
    let client = Arc::new(client(&authority));
    assert!(shown(&store, &client, "a.example").await.is_err());
    let data = SecretData { authorities: Some(authority.pem().into_bytes()), ..SecretData::default() };
    store.secret(&key, Some(Arc::new(data)));
    shown(&store, &client, "a.example").await.unwrap();
}

#[tokio::test]
async fn sessions_are_resumed_also_after_a_renewal() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let store = store(&listener(vec![authority.issue(&["a.example"]).write(folder.path(), "a")]));
    for versions in [[&rustls::version::TLS12], [&rustls::version::TLS13]] {
        let client = Arc::new(client_of(&authority, &versions, None));
        let kind = async || {
            let open = handshake(web(&store).server_config(true), &client, "a.example").await.unwrap();
            open.client.get_ref().1.handshake_kind()
        };
        assert_eq!(kind().await, Some(HandshakeKind::Full));
        assert_eq!(kind().await, Some(HandshakeKind::Resumed));
        authority.issue(&["a.example"]).write(folder.path(), "a");
        store.look();
        assert_eq!(kind().await, Some(HandshakeKind::Resumed));
    }
}

fn upstream(ca: PemSource) -> UpstreamTls {
    UpstreamTls { ca: Some(ca), ..UpstreamTls::default() }
}

#[test]
fn routes_get_what_they_want_as_they_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let by_file = upstream(authorities(folder.path(), &authority));
    let by_secret = UpstreamTls {
        ca: Some(PemSource::Secret(secret("web/ca"))),
        client_certificate: Some(CertificateSource::Secret(secret("web/me"))),
        ..UpstreamTls::default()
    };
    let store = Store::new([].into_iter(), [&by_file].into_iter()).unwrap();
    let connectors = Arc::clone(store.connectors());
    let wanted = || store.secrets.borrow().iter().map(ToString::to_string).collect::<Vec<_>>();
    let first = connectors.get(&by_file).unwrap();
    first.config(Alpn::Http1).unwrap();
    assert!(connectors.get(&by_secret).is_none() && wanted().is_empty());

    store.want([&by_file, &by_secret].into_iter());
    assert_eq!(wanted(), ["web/ca", "web/me"]);
    assert!(Arc::ptr_eq(&first, &connectors.get(&by_file).unwrap()), "it stays the same one");
    let second = connectors.get(&by_secret).unwrap();
    let why = |connector: &UpstreamConnector| connector.config(Alpn::Http2).unwrap_err().to_string();
    assert!(why(&second).contains("secret:web/ca is not there"), "{}", why(&second));
    let data = SecretData { authorities: Some(authority.pem().into_bytes()), ..SecretData::default() };
    store.secret(&secret("web/ca"), Some(Arc::new(data)));
    assert!(why(&second).contains("secret:web/me is not there"), "{}", why(&second));
    let told = problems(&store);
    assert!(told.contains("`upstreamTls` of a route: nothing has been heard of the Secret web/me"), "{told}");
    store.secret(&secret("web/me"), Some(authority.issue(&["me"]).secret()));
    second.config(Alpn::Http2).unwrap();
    assert_eq!(problems(&store), "");
    assert_eq!(store.report.borrow().loaded[0].listener, "");

    // One that is not wanted any more stays for what is under way, until the next time.
    store.want([&by_secret].into_iter());
    assert!(connectors.get(&by_file).is_some());
    store.want([&by_secret].into_iter());
    assert!(connectors.get(&by_file).is_none());
    store.want([].into_iter());
    store.want([].into_iter());
    assert!(wanted().is_empty() && store.expiries().is_empty());
}

#[test]
fn what_a_route_wants_of_a_secret_that_is_known_already_is_there_at_once() {
    let authority = Authority::new("a");
    let key = secret("web/shop-tls");
    let store = store(&listener(vec![CertificateSource::Secret(key.clone())]));
    let mut data = (*authority.issue(&["a.example"]).secret()).clone();
    data.authorities = Some(authority.pem().into_bytes());
    store.secret(&key, Some(Arc::new(data)));
    let tls = upstream(PemSource::Secret(key));
    store.want([&tls].into_iter());
    store.connectors().get(&tls).unwrap().config(Alpn::Http1).unwrap();
    assert_eq!(problems(&store), "");
}

#[test]
fn the_files_of_a_route_cost_that_route_alone() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let file = folder.path().join("clients.crt");
    let tls = upstream(PemSource::File(file.clone()));
    let store = Store::new([].into_iter(), [&tls].into_iter()).unwrap();
    let connector = store.connectors().get(&tls).unwrap();
    assert!(matches!(connector.config(Alpn::Http1), Err(TlsError::NotReady(_))));
    assert!(problems(&store).contains("clients.crt cannot be read"), "{}", problems(&store));
    authorities(folder.path(), &authority);
    store.look();
    let first = connector.config(Alpn::Http1).unwrap();
    assert_eq!(problems(&store), "");
    // Broken: the one before stays. Another: it comes into force.
    std::fs::write(&file, "nothing").unwrap();
    look_long(&store);
    assert!(Arc::ptr_eq(&first, &connector.config(Alpn::Http1).unwrap()));
    assert!(problems(&store).contains("the one before stays in use"), "{}", problems(&store));
    authorities(folder.path(), &Authority::new("b"));
    store.look();
    assert!(!Arc::ptr_eq(&first, &connector.config(Alpn::Http1).unwrap()));
    assert_eq!(problems(&store), "");
}

#[test]
fn nothing_checked_needs_no_authority() {
    let ca = Some(PemSource::File("/nowhere/ca.crt".into()));
    let tls = UpstreamTls { ca, insecure_skip_verify: true, ..UpstreamTls::default() };
    let store = Store::new([].into_iter(), [&tls].into_iter()).unwrap();
    store.connectors().get(&tls).unwrap().config(Alpn::Http1).unwrap();
    assert_eq!(problems(&store), "");
}

/// A certificate is swapped all the time, and every handshake meanwhile gets one of them, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_fails_while_certificates_are_swapped() {
    let authority = Authority::new("a");
    let key = secret("web/shop-tls");
    let store = store(&listener(vec![CertificateSource::Secret(key.clone())]));
    let issued: Vec<_> = (0..2).map(|_| authority.issue(&["a.example"])).collect();
    store.secret(&key, Some(issued[0].secret()));
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (store, done, issued) = (Arc::clone(&store), Arc::clone(&done), issued.clone());
        move || {
            let mut swaps = 0_usize;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.secret(&key, Some(issued[swaps % 2].secret()));
                swaps += 1;
            }
            swaps
        }
    });
    for _ in 0..100 {
        let client = Arc::new(client(&authority));
        let leaf = shown(&store, &client, "a.example").await.unwrap();
        assert!(issued.iter().any(|issued| issued.der()[0] == leaf));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(swapping.join().unwrap() > 10, "swapped meanwhile");
    assert_eq!(problems(&store), "");
}
