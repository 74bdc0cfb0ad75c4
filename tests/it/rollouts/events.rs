//! `GET /api/v1/events`.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::{Value, json};
use serinus::rollout::Phase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{LONG, Shop};
use crate::support::stack::set_weight;
use crate::support::{PATIENCE, eventually};

/// A stream of events as a client reads it.
struct Events {
    socket: TcpStream,
    text: String,
    seen: VecDeque<(String, Value)>,
    last: u64,
}

impl Events {
    async fn open(admin: SocketAddr, query: &str) -> Self {
        let mut socket = TcpStream::connect(admin).await.unwrap();
        let request = format!("GET /api/v1/events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { socket, text: String::new(), seen: VecDeque::new(), last: 0 };
        while !events.text.contains(": the events follow") {
            assert!(events.read().await, "{}", events.text);
        }
        let head = events.text.to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"),
            "{head}"
        );
        assert!(head.contains("cache-control: no-store"), "{head}");
        events
    }

    /// Reads more; not at the end.
    async fn read(&mut self) -> bool {
        let mut piece = vec![0; 16 << 10];
        let read =
            tokio::time::timeout(PATIENCE, self.socket.read(&mut piece)).await.expect("an event in time");
        let read = read.unwrap();
        self.text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        read > 0
    }

    /// The next event: its name and its data. Those that are not of this kind are passed over.
    async fn next(&mut self, kind: &str) -> Value {
        loop {
            while let Some((name, data)) = self.seen.pop_front() {
                if name == kind {
                    return data;
                }
            }
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(|value| value.trim().to_owned())
                };
                let (Some(name), Some(data)) = (field("event:"), field("data:")) else { continue };
                let id: u64 = field("id:").map_or(self.last + 1, |id| id.parse().unwrap());
                assert!(id > self.last, "{block}");
                self.last = id;
                self.seen.push_back((name, serde_json::from_str(&data).unwrap()));
            }
            if self.seen.is_empty() {
                assert!(self.read().await, "the stream has ended");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_as_it_happens() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    let mut events = Events::open(router.0.admin(), "").await;
    let document = router.get("/openapi.json").await;
    let fits = |name: &str, data: &Value| {
        for name in [name, "EventData"] {
            let mut schema = document.clone();
            schema["$ref"] = json!(format!("#/components/schemas/{name}"));
            let schema = jsonschema::draft202012::new(&schema).unwrap();
            let errors: Vec<_> = schema.iter_errors(data).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}: {data}");
        }
    };
    router.does("start").await;
    let weight = events.next("weight").await;
    fits("WeightEvent", &weight);
    assert_eq!((&weight["route"], &weight["revision"]), (&"shop".into(), &2.into()), "{weight}");
    assert_eq!(weight["weights"], json!({"v1": 90, "v2": 10, "v3": 0}), "{weight}");
    let rollout = events.next("rollout").await;
    let wanted = json!({
        "time": rollout["time"], "route": "shop", "version": "v2", "phase": "running", "step": 1, "steps": 3,
        "weight": 10, "reason": "rollout started: step 1 of 3", "revision": 2,
    });
    assert_eq!(rollout, wanted);
    fits("RolloutEvent", &rollout);
    router.does("pause").await;
    assert_eq!(events.next("rollout").await["phase"], "paused");
    router.does("abort").await;
    let weight = events.next("weight").await;
    assert_eq!(
        (&weight["reason"], &weight["revision"]),
        (&"aborted".into(), &4.into()),
        "pausing changed no weight"
    );
    assert_eq!(events.next("rollout").await["phase"], "aborted");

    set_weight(&router.0, "shop", r#"{"v2": 30}"#).await;
    let weight = events.next("weight").await;
    assert_eq!((&weight["source"], &weight["reason"]), (&"admin".into(), &"test".into()), "{weight}");
    shop.write(Some(LONG), false);
    let config = events.next("config").await;
    fits("ConfigEvent", &config);
    assert_eq!((&config["accepted"], &config["routes"]), (&true.into(), &1.into()), "{config}");
    let endpoint = events.next("endpoint").await;
    fits("EndpointEvent", &endpoint);
    let address = shop.canary.address().to_string();
    assert_eq!(
        (&endpoint["version"], endpoint["address"].as_str(), &endpoint["state"]),
        (&"v2".into(), Some(address.as_str()), &"gone".into())
    );
    let problem = events.next("problem").await;
    fits("ProblemEvent", &problem);
    assert_eq!((&problem["route"], &problem["there"]), (&"shop".into(), &true.into()), "{problem}");
    shop.write(Some(LONG), true);
    assert_eq!(events.next("endpoint").await["state"], "ready");
    std::fs::write(shop.folder.path().join("new.yaml"), "routes: 7").unwrap();
    std::fs::rename(shop.folder.path().join("new.yaml"), shop.file()).unwrap();
    let config = events.next("config").await;
    assert!(config["accepted"] == false && config["errors"].as_str().unwrap().contains("routes"), "{config}");
    router.stop().await;
    // It ends with the router.
    while events.read().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_one_route_has_no_others_events() {
    let shop = Shop::new().await;
    let other = "  - name: blog\n    hosts: [blog.example.com]\n    service: web/svc\n    versions: [{name: v1, selector: \
                 version=v1}, {name: v2, selector: version=v2}]\n";
    std::fs::write(shop.file(), shop.config(Some(LONG), true, other)).unwrap();
    let router = super::Running(crate::support::stack::start_router(shop.file()).await);
    let mut all = Events::open(router.0.admin(), "").await;
    let mut blog = Events::open(router.0.admin(), "?route=blog").await;
    set_weight(&router.0, "shop", r#"{"v2": 1}"#).await;
    set_weight(&router.0, "blog", r#"{"v2": 2}"#).await;
    let weight = blog.next("weight").await;
    assert_eq!(weight["route"], "blog");
    assert_eq!(
        (all.next("weight").await["route"].clone(), all.next("weight").await["route"].clone()),
        ("shop".into(), "blog".into())
    );
    assert_eq!(blog.last, all.last, "the number of the other one is left out");
    let unknown = router.get("/api/v1/events?route=nix").await;
    assert_eq!(unknown["type"], "urn:serinus:problem:unknown-route");
    let bad = router.get("/api/v1/events?rute=shop").await;
    assert_eq!(
        (&bad["status"], &bad["type"]),
        (&400.into(), &"urn:serinus:problem:bad-query".into()),
        "{bad}"
    );
    drop((all, blog));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_only_so_many_streams_and_each_gives_its_place_back() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    let admin = router.0.admin();
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Events::open(admin, "").await);
    }
    let refused = router.get("/api/v1/events").await;
    assert_eq!(refused["type"], "urn:serinus:problem:too-many-streams", "{refused}");
    // Probes and writes go on, and every stream hears of it.
    router.does("start").await;
    for stream in &mut streams {
        assert_eq!(stream.next("rollout").await["phase"], "running");
    }
    streams.truncate(63);
    let mut again = None;
    for _ in 0..1_000 {
        let mut socket = TcpStream::connect(admin).await.unwrap();
        socket.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        if &head == b"HTTP/1.1 200" {
            again = Some(socket);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(again.is_some(), "a place is free again");
    router.until_phase(Phase::Running).await;
    drop((streams, again));
    eventually("the router is as it was", || router.view()).await;
    router.stop().await;
}
