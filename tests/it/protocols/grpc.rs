//! gRPC, with tonic on both sides; messages are plain bytes, so that no compiler of protocols is needed.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use futures::{Stream, StreamExt as _, stream};
use http::uri::PathAndQuery;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use super::front::{Front, HOST, Io, Plan};
use super::pods::{Pod, Speaks, nobody};
use crate::support::apiserver::ApiServer;
use crate::support::certificates::Authority;
use crate::support::cluster::{Cluster, loopback_address};
use crate::support::eventually;
use crate::support::stack::{POD_PORT, cluster_config, start_router};

/// Messages are bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// Told when a call that hangs is given up.
struct GivenUp(mpsc::UnboundedSender<()>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        // Nobody asks any more where the test has ended.
        let _ = self.0.send(());
    }
}

type Call = tonic::Request<Vec<u8>>;
type Calls = tonic::Request<Streaming<Vec<u8>>>;
type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

async fn unary(call: Call, given_up: GivenUp) -> Result<Response<Vec<u8>>, Status> {
    match call.get_ref().as_slice() {
        b"fail" => {
            let mut status = Status::with_details(Code::FailedPrecondition, "nö", b"details"[..].into());
            status.metadata_mut().insert("x-why", "because".parse().unwrap());
            Err(status)
        }
        b"hang" => {
            let _given_up = given_up;
            std::future::pending().await
        }
        b"soon" => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Response::new(b"soon".to_vec()))
        }
        _ => {
            let deadline = call.metadata().get("grpc-timeout").map(|t| t.to_str().unwrap().to_owned());
            let mut response = Response::new(call.into_inner());
            response.metadata_mut().insert("x-deadline", deadline.unwrap_or_default().parse().unwrap());
            Ok(response)
        }
    }
}

/// As many messages as the call asks for, 100 ms apart; then an error, if it asks for that.
async fn server_streaming(call: Call) -> Result<Response<Answers>, Status> {
    let text = String::from_utf8(call.into_inner()).unwrap();
    let (count, fails) = match text.strip_suffix(" and fail") {
        Some(count) => (count.parse::<u32>().unwrap(), true),
        None => (text.parse().unwrap(), false),
    };
    let messages = stream::iter(0..count).then(|n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(n.to_string().into_bytes())
    });
    let end = stream::iter(fails.then(|| Err(Status::data_loss("all is lost"))));
    Ok(Response::new(Box::pin(messages.chain(end)) as Answers))
}

async fn client_streaming(calls: Calls) -> Result<Response<Vec<u8>>, Status> {
    let mut messages = calls.into_inner();
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.extend(message);
    }
    Ok(Response::new(all))
}

async fn bidi(calls: Calls) -> Result<Response<Answers>, Status> {
    Ok(Response::new(Box::pin(calls.into_inner()) as Answers))
}

type Heard = mpsc::UnboundedReceiver<()>;

async fn pod(tls: Option<Arc<ServerConfig>>) -> (Pod, Heard) {
    pod_at("127.0.0.1:0".parse().unwrap(), tls).await
}

/// A pod with a method of every kind.
async fn pod_at(address: std::net::SocketAddr, tls: Option<Arc<ServerConfig>>) -> (Pod, Heard) {
    let (given_up, heard) = mpsc::unbounded_channel();
    let answer = move |request: Request<Incoming>| {
        let given_up = given_up.clone();
        async move {
            let path = request.uri().path().to_owned();
            let mut grpc = tonic::server::Grpc::new(Plain);
            match path.as_str() {
                "/test.Test/Unary" => {
                    let one = move |call| unary(call, GivenUp(given_up.clone()));
                    grpc.unary(tower::service_fn(one), request).await
                }
                "/test.Test/ServerStreaming" => {
                    grpc.server_streaming(tower::service_fn(server_streaming), request).await
                }
                "/test.Test/ClientStreaming" => {
                    grpc.client_streaming(tower::service_fn(client_streaming), request).await
                }
                "/test.Test/Bidi" => grpc.streaming(tower::service_fn(bidi), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            }
        }
    };
    (Pod::http_at(address, Speaks::Http2, tls, answer).await, heard)
}

/// A client on one connection.
async fn client(io: impl Io + 'static, origin: &str) -> Grpc<Channel> {
    let mut io = Some(io);
    let connector = tower::service_fn(move |_| ready(io.take().map(TokioIo::new).ok_or("one connection")));
    let endpoint = Endpoint::from_static("http://127.0.0.1").origin(origin.parse().unwrap());
    Grpc::new(endpoint.connect_with_connector(connector).await.unwrap())
}

fn method(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}

async fn call(grpc: &mut Grpc<Channel>, message: &str) -> Result<Response<Vec<u8>>, Status> {
    grpc.ready().await.unwrap();
    grpc.unary(tonic::Request::new(message.into()), method("/test.Test/Unary"), Plain).await
}

async fn streamed(grpc: &mut Grpc<Channel>, message: &str) -> Result<(Vec<String>, Option<Status>), Status> {
    grpc.ready().await.unwrap();
    let path = method("/test.Test/ServerStreaming");
    let mut answers =
        grpc.server_streaming(tonic::Request::new(message.into()), path, Plain).await?.into_inner();
    let mut got = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(message)) => got.push(String::from_utf8(message).unwrap()),
            Ok(None) => return Ok((got, None)),
            Err(status) => return Ok((got, Some(status))),
        }
    }
}

/// Calls of every kind, and errors of the pod's own.
async fn talk(grpc: &mut Grpc<Channel>) {
    let answer = call(grpc, "grüezi").await.unwrap();
    assert_eq!(answer.into_inner(), "grüezi".as_bytes());
    let large = "x".repeat(3 << 20);
    assert_eq!(call(grpc, &large).await.unwrap().into_inner(), large.as_bytes());

    let status = call(grpc, "fail").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "nö"));
    assert_eq!(status.details(), b"details");
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");

    assert_eq!(streamed(grpc, "3").await.unwrap().0, ["0", "1", "2"]);
    let (got, status) = streamed(grpc, "2 and fail").await.unwrap();
    let status = status.expect("the stream fails after its messages");
    assert_eq!((got.len(), status.code(), status.message()), (2, Code::DataLoss, "all is lost"));

    grpc.ready().await.unwrap();
    let messages = stream::iter(["a", "b", "c"].map(|m| m.as_bytes().to_vec()));
    let path = method("/test.Test/ClientStreaming");
    let answer = grpc.client_streaming(tonic::Request::new(messages), path, Plain).await.unwrap();
    assert_eq!(answer.into_inner(), b"abc");

    // Each message is sent when the answer to the one before has come.
    grpc.ready().await.unwrap();
    let (send, receive) = mpsc::unbounded_channel::<Vec<u8>>();
    let messages = stream::unfold(receive, |mut receive| async { Some((receive.recv().await?, receive)) });
    send.send(b"0".to_vec()).unwrap();
    let path = method("/test.Test/Bidi");
    let mut answers = grpc.streaming(tonic::Request::new(messages), path, Plain).await.unwrap().into_inner();
    for n in 1..20_u8 {
        assert_eq!(answers.message().await.unwrap().unwrap(), (n - 1).to_string().into_bytes());
        send.send(n.to_string().into_bytes()).unwrap();
    }
    drop(send);
    assert_eq!(answers.message().await.unwrap().unwrap(), b"19");
    assert_eq!(answers.message().await.unwrap(), None);

    grpc.ready().await.unwrap();
    let unknown =
        grpc.unary::<_, Vec<u8>, _>(tonic::Request::new(Vec::new()), method("/test.Test/No"), Plain);
    assert_eq!(unknown.await.unwrap_err().message(), "no such method");
}

async fn idle(front: &Front) {
    eventually("every request has ended", || (front.active() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_of_every_kind_passes_with_and_without_tls_on_either_side() {
    let authority = Authority::new("a");
    let issued = authority.issue(&[HOST]);
    for (pod_tls, front_tls) in [(false, false), (true, true)] {
        let (pod, _heard) = pod(pod_tls.then(|| issued.server(&["h2"]))).await;
        let mut plan = Plan::to([pod.address]).route("protocol: http2");
        if pod_tls {
            let ca = plan.file("ca.crt", &authority.pem());
            plan = plan.route(format!("upstreamTls: {{serverName: {HOST}, caFile: {ca}}}"));
        }
        if front_tls {
            plan = plan.tls(&[&issued], "");
        }
        let front = plan.start().await;
        let mut grpc = if front_tls {
            let io = front.secure(&authority.client(), HOST, &["h2"]).await.unwrap();
            assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            client(io, "https://shop.example").await
        } else {
            client(front.plain().await, "http://shop.example").await
        };
        talk(&mut grpc).await;
        idle(&front).await;
        assert_eq!(pod.connections(), 1, "all calls share a connection to the pod");
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_clients_get_errors_of_the_router_as_statuses() {
    let (pod, mut heard) = pod(None).await;
    let front = Plan::to([pod.address])
        .route("hosts: [shop.example]")
        .route("protocol: http2")
        .route("timeouts: {request: 600ms}")
        .route("maxBody: 1KiB")
        .start()
        .await;
    let mut elsewhere = client(front.plain().await, "http://elsewhere.example").await;
    let status = call(&mut elsewhere, "x").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.metadata().get("x-serinus-reason").unwrap(), "no-route");
    assert_eq!(status.message(), "No route takes this host and path (no-route)");

    let mut grpc = client(front.plain().await, "http://shop.example").await;
    let status = call(&mut grpc, "hang").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("x-serinus-reason").unwrap(), "timeout");
    heard.recv().await.expect("the pod hears that nobody waits");

    let status = call(&mut grpc, &"x".repeat(4096)).await.unwrap_err();
    assert_eq!(status.metadata().get("x-serinus-reason").unwrap(), "body-too-large", "{status:?}");

    // A client's own deadline: the pod is told of it, and that the client has left.
    let timed = |message: &str, after| {
        let mut request = tonic::Request::new(message.as_bytes().to_vec());
        request.set_timeout(after);
        request
    };
    grpc.ready().await.unwrap();
    let request = timed("hello", Duration::from_secs(7));
    let answer = grpc.unary::<_, Vec<u8>, _>(request, method("/test.Test/Unary"), Plain).await.unwrap();
    assert_eq!(answer.metadata().get("x-deadline").unwrap(), "7000000u");
    grpc.ready().await.unwrap();
    let request = timed("hang", Duration::from_millis(100));
    let status = grpc.unary::<_, Vec<u8>, _>(request, method("/test.Test/Unary"), Plain).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    heard.recv().await.expect("the pod hears that nobody waits");
    assert_eq!(call(&mut grpc, "still there").await.unwrap().into_inner(), b"still there");
    idle(&front).await;
    front.router.stop().await;

    for (pods, reason) in [(vec![], "no-endpoints"), (vec![nobody()], "connect-failed")] {
        let front = Plan::to(pods).route("protocol: http2").start().await;
        let mut grpc = client(front.plain().await, "http://shop.example").await;
        let status = call(&mut grpc, "x").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.metadata().get("x-serinus-reason").unwrap(), reason);
        front.router.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_4_grpc_streams_outlive_the_requests_time() {
    let (pod, _heard) = pod(None).await;
    let front = Plan::to([pod.address])
        .route("protocol: http2")
        .route("timeouts: {request: 500ms, total: 500ms, idle: 50ms}")
        .listener("timeouts: {header: 500ms, body: 500ms, write: 500ms, idle: 500ms}")
        .start()
        .await;
    let mut grpc = client(front.plain().await, "http://shop.example").await;
    let (got, status) = streamed(&mut grpc, "9").await.unwrap();
    assert!(status.is_none(), "{status:?}");
    assert_eq!(got.len(), 9);
    front.router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_at_once_on_one_connection() {
    let (pod, _heard) = pod(None).await;
    let front = Plan::to([pod.address]).route("protocol: http2").start().await;
    let grpc = client(front.plain().await, "http://shop.example").await;
    let calls = (0..200).map(|_| {
        let mut grpc = grpc.clone();
        tokio::spawn(async move { call(&mut grpc, "soon").await.map(Response::into_inner) })
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().unwrap(), b"soon");
    }
    let open = front.router.telemetry().connections("web").get();
    assert_eq!(open, 1);
    assert!(pod.connections() <= 3, "{} connections to the pod", pod.connections());
    idle(&front).await;
    front.router.stop().await;
}

/// A Service whose pods speak what its port says.
fn service(app_protocol: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: svc, namespace: web}}
spec:
  selector: {{app: svc}}
  ports: [{{port: 80, targetPort: {POD_PORT}, appProtocol: {app_protocol}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: svc, namespace: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: svc}}}}
  template:
    metadata: {{labels: {{app: svc}}}}
    spec: {{containers: [{{name: svc, image: svc, ports: [{{containerPort: {POD_PORT}}}]}}]}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_4_pods_are_spoken_to_as_their_service_says() {
    for app_protocol in ["kubernetes.io/h2c", "grpc"] {
        let api = ApiServer::start().await;
        let kubeconfig = api.kubeconfig();
        let mut cluster = Cluster::new(api, loopback_address);
        cluster.load(&service(app_protocol));
        let mut pods = Vec::new();
        for pod in cluster.all_pods() {
            pods.push(pod_at((pod.ip, POD_PORT).into(), None).await);
        }
        assert_eq!(pods.len(), 2);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serinus.yaml");
        let routes =
            "  - {name: shop, service: web/svc, port: 80, versions: [{name: v1}], balance: roundRobin}\n";
        std::fs::write(&file, cluster_config(&kubeconfig, folder.path(), routes)).unwrap();
        let router = start_router(file).await;
        let ready = || router.control().readiness().hindrance().is_none();
        eventually("the router is ready", || ready().then_some(())).await;
        let io = TcpStream::connect(router.listeners()[0].1).await.unwrap();
        let mut grpc = client(io, "http://shop.example").await;
        for _ in 0..4 {
            assert_eq!(call(&mut grpc, "hello").await.unwrap().into_inner(), b"hello");
        }
        assert!(pods.iter().all(|(pod, _)| pod.connections() == 1));
        router.stop().await;
    }
}
