//! Which lines the log has, and how that is changed while a router runs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;

use serde_json::{Value, json};

use crate::rollouts::call;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::process::{Process, serinus};

const PUBLISHED: &str = "routing table published";
const CHANGED: &str = "weights changed";
const TOKEN: &str = "Authorization: Bearer hush\r\n";

struct Lab {
    folder: tempfile::TempDir,
    process: Process,
}

impl Lab {
    /// A router that wants a token.
    async fn start(environment: &[(&str, &str)]) -> Self {
        Self::start_with("", environment).await
    }

    /// The same, with further lines of config.
    async fn start_with(more: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, token) = (folder.path().join("serinus.yaml"), folder.path().join("token"));
        fs::write(&token, "hush").unwrap();
        let config = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0', tokenFile: {}}}\n\
             discovery: {{static: {{web/shop: [{{address: '127.0.0.1:9'}}]}}}}\nroutes:\n  - name: shop\n    \
             service: web/shop\n    versions:\n      - {{name: v1, selector: 'version!=v2'}}\n      \
             - {{name: v2, selector: version=v2}}\n{more}",
            token.display()
        );
        fs::write(&file, config).unwrap();
        let mut command = serinus(&["run", "--config", &file.display().to_string()]);
        command.envs(environment.iter().copied());
        Self { folder, process: Process::spawn(command).await }
    }

    async fn ask(&self, line: &str, headers: &str, body: &Value) -> (u16, Value) {
        call(self.process.admin, line, headers, body).await
    }

    async fn levels(&self, filter: &Value) -> (u16, Value) {
        self.ask("PUT /api/v1/log", TOKEN, &json!({ "filter": filter })).await
    }

    /// Changes the weight of v2, and gives how many tables the log has told of since it began.
    async fn published(&self, weight: u32) -> usize {
        let before = self.process.times_logged(CHANGED);
        let body = json!({"weights": {"v2": weight}});
        let (status, answer) = self.ask("PUT /api/v1/routes/shop/weights", TOKEN, &body).await;
        assert_eq!(status, 200, "{answer}");
        eventually("the change is logged", || (self.process.times_logged(CHANGED) > before).then_some(()))
            .await;
        self.process.times_logged(PUBLISHED)
    }

    fn command(&self, args: &[&str]) -> crate::support::process::Said {
        let token = self.folder.path().join("token").display().to_string();
        self.process.client(&[args, &["--token-file", &token]].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_program_says_more_while_it_runs_and_less_again() {
    let lab = Lab::start(&[]).await;
    assert_eq!(lab.published(1).await, 0);
    let (status, answer) = lab.levels(&json!(" serinus::telemetry=debug,h2=warn")).await;
    assert_eq!((status, &answer["filter"]), (200, &json!("serinus::telemetry=debug,h2=warn")), "{answer}");
    assert!(answer["start"].as_str().unwrap().starts_with("warn,serinus=info,"), "{answer}");
    assert_eq!(lab.ask("GET /api/v1/log", "", &Value::Null).await, (200, answer));
    lab.published(2).await;
    eventually("the part says more", || (lab.process.times_logged(PUBLISHED) == 1).then_some(())).await;
    // Who did it, and what, is in the log itself.
    let line = lab.process.logged("the log's filter is changed").unwrap();
    assert_eq!(line["filter"], " serinus::telemetry=debug,h2=warn");
    assert_eq!(line["who"], "token@127.0.0.1");
    // Back to what it began with.
    let (status, answer) = lab.levels(&Value::Null).await;
    assert_eq!((status, &answer["filter"]), (200, &Value::Null), "{answer}");
    assert_eq!(lab.published(3).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_changes_nothing_and_is_said() {
    let lab = Lab::start(&[("RUST_LOG", "serinus=info")]).await;
    let now = lab.ask("GET /api/v1/log", "", &Value::Null).await;
    assert_eq!(now, (200, json!({"start": "serinus=info", "filter": null})));
    let (status, answer) = lab.levels(&json!("serinus=loud,[x]=debug")).await;
    assert_eq!((status, &answer["type"]), (422, &json!("urn:serinus:problem:bad-filter")), "{answer}");
    assert_eq!(answer["errors"].as_array().unwrap().len(), 2, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("`loud` is no level"), "{answer}");
    for body in
        [json!({}), json!({"filter": 7}), json!({"level": "debug"}), json!({"filter": "a".repeat(1_001)})]
    {
        assert_eq!(lab.ask("PUT /api/v1/log", TOKEN, &body).await.0, 422, "{body}");
    }
    let (status, answer) = lab.ask("PUT /api/v1/log", "", &json!({"filter": "off"})).await;
    assert_eq!(status, 401, "{answer}");
    assert_eq!(lab.ask("GET /api/v1/log", "", &Value::Null).await, now);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_and_changes_it() {
    let lab = Lab::start(&[("RUST_LOG", "serinus=info")]).await;
    let nothing = "began with: serinus=info\nasked for:  nothing since\n";
    assert_eq!(lab.command(&["log"]).done(), nothing);
    let asked = lab.command(&["log", "serinus::proxy=debug"]).done();
    assert_eq!(asked, "began with: serinus=info\nasked for:  serinus::proxy=debug\n");
    assert_eq!(lab.command(&["log"]).done(), asked);
    let said = lab.command(&["log", "loud"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("`loud` is no level: write `off`"), "{said:?}");
    assert_eq!(lab.command(&["log", "--reset"]).done(), nothing);
    assert_eq!(lab.command(&["log", "--reset", "debug"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_logged_of_calls_no_url_and_no_key_is() {
    let tracing = "tracing: {endpoint: 'http://127.0.0.1:1/secret-path?k=secret-query', sample: 100}\n";
    let environment = [
        ("RUST_LOG", "info,ureq=trace,ureq_proto=trace"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret-key"),
    ];
    let lab = Lab::start_with(tracing, &environment).await;
    assert_eq!(Client::new(lab.process.web).get("shop.example", "/").await.unwrap().status, 502);
    eventually("the call was tried", || lab.process.logged("traces cannot be sent")).await;
    let told: Vec<_> =
        lab.process.log().into_iter().filter(|line| line.to_string().contains("secret-")).collect();
    assert!(told.is_empty(), "{told:#?}");
}
