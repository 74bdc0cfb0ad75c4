//! TLS towards clients and pods.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::bodies::{Sent, text};
use super::front::{Front, HOST, Plan, Sender, http2, write_certificate};
use super::pods::{Pod, Speaks};
use super::raw::{Raw, header};
use crate::support::PATIENCE;
use crate::support::certificates::{Authority, Issued};

/// Says what it was told of the scheme and of the host.
async fn answer(request: Request<Incoming>) -> Response<Sent> {
    let said = |name| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    Response::new(Sent::whole(format!("{} {}", said("x-forwarded-proto"), said("host"))))
}

async fn pod() -> Pod {
    Pod::http(Speaks::Http1, None, answer).await
}

/// The certificate that was shown.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn leaf(issued: &Issued) -> CertificateDer<'static> {
    issued.certificates().remove(0)
}

async fn get(raw: &mut Raw, host: &str) -> (String, String) {
    raw.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let head = raw.head().await.expect("an answer");
    let length = header(&head, "content-length").expect("a length").parse().unwrap();
    let body = raw.exactly(length).await;
    (head, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_the_name_and_versions_and_protocols_are_agreed_on() {
    let authority = Authority::new("a");
    // The first is for all others too.
    let first = authority.issue(&["first.example", "other.test", "a.b.wild.example"]);
    let exact = authority.issue(&["shop.example", "one.wild.example"]);
    let wild = authority.issue(&["*.wild.example"]);
    let pod = pod().await;
    let front = Plan::to([pod.address]).tls(&[&first, &exact, &wild], "").start().await;
    let client = authority.client();
    for (name, wanted) in [
        ("shop.example", &exact),
        ("SHOP.example", &exact),
        ("one.wild.example", &exact),
        ("two.wild.example", &wild),
        ("a.b.wild.example", &first),
        ("other.test", &first),
    ] {
        let stream = front.secure(&client, name, &[]).await.unwrap();
        assert!(shown(&stream) == leaf(wanted), "{name}");
    }
    // Without a name.
    let mut nameless = (*client).clone();
    nameless.enable_sni = false;
    let stream = front.secure(&nameless, "first.example", &[]).await.unwrap();
    assert!(shown(&stream) == leaf(&first));

    for (versions, agreed) in
        [(&[&TLS12][..], ProtocolVersion::TLSv1_2), (&[&TLS13][..], ProtocolVersion::TLSv1_3)]
    {
        let config = authority.client_of(versions, None);
        for (alpn, http) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1"), (&[][..], "")]
        {
            let stream = front.secure(&config, "shop.example", alpn).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(agreed));
            assert_eq!(session.alpn_protocol().unwrap_or_default(), http.as_bytes());
            if http == "h2" {
                let mut sender = Sender::new(Speaks::Http2, stream).await;
                let answer = sender.send(sender.request("GET", "/", Sent::empty())).await.unwrap();
                assert_eq!(text(answer.into_body()).await, "https shop.example");
            } else {
                assert_eq!(get(&mut Raw::new(stream), "shop.example").await.1, "https shop.example");
            }
        }
    }
    front.router.stop().await;

    let front =
        Plan::to([pod.address]).tls(&[&exact], "minVersion: \"1.3\"").listener("http2: false").start().await;
    let old = authority.client_of(&[&TLS12], None);
    assert!(front.secure(&old, "shop.example", &[]).await.is_err());
    let stream = front.secure(&client, "shop.example", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    // HTTP without TLS is not answered with anything that could pass for an answer.
    let mut plain = Raw::new(front.plain().await);
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(plain.head().await, None);
    front.router.stop().await;
}

/// Whether a client is served: in TLS 1.3 it hears of a refusal only after its own side of the handshake.
async fn is_served(front: &Front, config: &ClientConfig) -> bool {
    let Ok(stream) = front.secure(config, HOST, &[]).await else { return false };
    let mut raw = Raw::new(stream);
    raw.try_send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.is_ok()
        && raw.head().await.is_some_and(|head| head.starts_with("HTTP/1.1 200 "))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients_are_checked() {
    let (authority, clients, strangers) = (Authority::new("a"), Authority::new("c"), Authority::new("s"));
    let issued = authority.issue(&[HOST]);
    let own = clients.issue(&["client.example"]);
    let strange = strangers.issue(&["client.example"]);
    let pod = pod().await;
    for (required, versions) in [(true, &[&TLS13]), (true, &[&TLS12]), (false, &[&TLS13]), (false, &[&TLS12])]
    {
        let plan = Plan::to([pod.address]);
        let ca = plan.file("clients.crt", &clients.pem());
        let front = plan
            .tls(&[&issued], &format!("clientCertificates: {{caFile: {ca}, required: {required}}}"))
            .start()
            .await;
        assert!(is_served(&front, &authority.client_of(versions, Some(&own))).await);
        assert_eq!(is_served(&front, &authority.client_of(versions, None)).await, !required);
        assert!(!is_served(&front, &authority.client_of(versions, Some(&strange))).await);
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_for_new_connections_and_open_ones_go_on() {
    let authority = Authority::new("a");
    let (old, new) = (authority.issue(&[HOST]), authority.issue(&[HOST]));
    let pod = pod().await;
    let front = Plan::to([pod.address]).tls(&[&old], "").start().await;
    let client = authority.client();
    let stream = front.secure(&client, HOST, &["http/1.1"]).await.unwrap();
    assert!(shown(&stream) == leaf(&old));
    let mut open = Raw::new(stream);
    get(&mut open, HOST).await;
    let stream = front.secure(&client, HOST, &["h2"]).await.unwrap();
    let mut open_h2 = Sender::new(Speaks::Http2, stream).await;
    open_h2.send(open_h2.request("GET", "/", Sent::empty())).await.unwrap();

    write_certificate(front.folder.path(), "0", &new);
    let renewed = async {
        loop {
            let stream = front.secure(&client, HOST, &[]).await.unwrap();
            if shown(&stream) == leaf(&new) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(2 * PATIENCE, renewed).await.expect("the new one is shown");
    get(&mut open, HOST).await;
    assert_eq!(open_h2.send(open_h2.request("GET", "/", Sent::empty())).await.unwrap().status(), 200);

    // One that cannot be used changes nothing.
    std::fs::write(front.folder.path().join("0.crt"), "nonsense").unwrap();
    let problem = || front.router.control().problems().iter().any(|p| p.to_string().contains("0.crt"));
    crate::support::eventually("it is told of", || problem().then_some(())).await;
    let stream = front.secure(&client, HOST, &[]).await.unwrap();
    assert!(shown(&stream) == leaf(&new));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_certificate_is_sent_to_another_connection() {
    let authority = Authority::new("a");
    let one = authority.issue(&[HOST, "www.shop.example"]);
    let other = authority.issue(&["other.example"]);
    let pod = pod().await;
    let front = Plan::to([pod.address]).tls(&[&one, &other], "").start().await;
    let stream = front.secure(&authority.client(), HOST, &["h2"]).await.unwrap();
    let mut client = http2(stream).await;
    for (host, status) in [(HOST, 200), ("www.shop.example:8443", 200), ("other.example", 421), (HOST, 200)] {
        let request = Request::get(format!("https://{host}/")).body(Sent::empty()).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{host}");
        let reason = answer.headers().get("x-serinus-reason").map(|value| value.to_str().unwrap());
        assert_eq!(reason, (status == 421).then_some("misdirected"));
    }
    let mut raw = Raw::new(front.secure(&authority.client(), HOST, &[]).await.unwrap());
    assert!(get(&mut raw, "other.example").await.0.starts_with("HTTP/1.1 421 "));
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_to_https() {
    let pod = pod().await;
    for (redirect, status, location) in [
        ("redirect: {scheme: https}", 308, "https://shop.example/a/b?c=d"),
        ("redirect: {scheme: https, port: 8443, status: 302}", 302, "https://shop.example:8443/a/b?c=d"),
    ] {
        let front = Plan::to([pod.address]).listener(redirect).start().await;
        for host in ["shop.example", "shop.example:8080"] {
            let mut client = Raw::new(front.plain().await);
            client.send(format!("GET /a/b?c=d HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            let head = client.head().await.unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert_eq!(header(&head, "location"), Some(location));
            assert_eq!(header(&head, "x-serinus-reason"), Some("redirect"));
        }
        let mut client = http2(front.plain().await).await;
        let request = Request::post("http://shop.example/a/b?c=d").body(Sent::whole("x")).unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (status, &location.parse().unwrap())
        );
        front.router.stop().await;
    }
    assert_eq!(pod.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_spoken_to_in_tls_and_only_the_right_ones() {
    let (authority, stranger) = (Authority::new("a"), Authority::new("s"));
    let issued = authority.issue(&["pods.example"]);
    let mut pods = Vec::new();
    for _ in 0..3 {
        pods.push(Pod::http(Speaks::Http1, Some(issued.server(&["http/1.1"])), answer).await);
    }
    let addresses = || pods.iter().map(|pod| pod.address);
    let connections = || pods.iter().map(Pod::connections).sum::<u64>();

    let plan = Plan::to(addresses());
    let ca = plan.file("ca.crt", &authority.pem());
    let front = plan.route(format!("upstreamTls: {{serverName: pods.example, caFile: {ca}}}")).start().await;
    let mut client = Raw::new(front.plain().await);
    assert_eq!(get(&mut client, HOST).await.1, "http shop.example", "the client's own connection is plain");
    front.router.stop().await;

    for (name, signer) in [("wrong.example", &authority), ("pods.example", &stranger)] {
        let plan = Plan::to(addresses());
        let ca = plan.file("ca.crt", &signer.pem());
        let front = plan.route(format!("upstreamTls: {{serverName: {name}, caFile: {ca}}}")).start().await;
        let before = connections();
        let mut client = Raw::new(front.plain().await);
        let (head, _) = get(&mut client, HOST).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert_eq!(header(&head, "x-serinus-reason"), Some("connect-failed"));
        assert_eq!(connections() - before, 3, "each pod once, and no storm");
        front.router.stop().await;
    }

    let plain = pod().await;
    let front = Plan::to([plain.address]).route("upstreamTls: {insecureSkipVerify: true}").start().await;
    let mut client = Raw::new(front.plain().await);
    let (head, _) = get(&mut client, HOST).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "a pod without TLS: {head}");
    front.router.stop().await;

    let front = Plan::to(addresses()).route("upstreamTls: {insecureSkipVerify: true}").start().await;
    let mut client = Raw::new(front.plain().await);
    assert!(get(&mut client, HOST).await.0.starts_with("HTTP/1.1 200 "), "any certificate will do");
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_may_ask_for_the_routers_certificate() {
    let (authority, own) = (Authority::new("a"), Authority::new("o"));
    let issued = authority.issue(&["pods.example"]);
    let shown = own.issue(&["serinus.example"]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(own.pem().as_bytes()).unwrap()).unwrap();
    let config = issued.server_asking(roots, &["http/1.1"]);
    let pod = Pod::http(Speaks::Http1, Some(Arc::clone(&config)), answer).await;
    for (with, status) in [(true, 200), (false, 502)] {
        let plan = Plan::to([pod.address]);
        let ca = plan.file("ca.crt", &authority.pem());
        let (cert, key) = (plan.file("own.crt", &shown.chain), plan.file("own.key", &shown.key));
        let certificate =
            if with { format!(", certificate: {{certFile: {cert}, keyFile: {key}}}") } else { String::new() };
        let tls = format!("upstreamTls: {{serverName: pods.example, caFile: {ca}{certificate}}}");
        let front = plan.route(tls).start().await;
        let mut client = Raw::new(front.plain().await);
        let (head, _) = get(&mut client, HOST).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        front.router.stop().await;
    }
}
