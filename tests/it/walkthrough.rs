//! The walk-through of the README: its config, its commands and what they print.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::fs;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::support::http::Client;
use crate::support::process::{Process, say, serinus};
use crate::support::stack::{Stack, manifest};

const README: &str = include_str!("../../README.md");

/// The blocks of this kind in the walk-through's section.
fn blocks(kind: &str) -> Vec<&'static str> {
    let (_, rest) = README.split_once("\n## Shift 0.1 %, and go back\n").expect("the section begins");
    let (section, _) = rest.split_once("\n## ").expect("the section ends");
    let begins = format!("```{kind}\n");
    section.split(&begins).skip(1).map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// What varies from run to run, made the same; the width of columns is no part of it.
fn normal(text: &str) -> String {
    let mut text = text.to_owned();
    for (varies, same) in [
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"\d+(\.\d+)? ms", "N ms"),
        (r"\d+\.\d+\.\d+\.\d+:\d+", "ADDRESS"),
        (r"[ \t]+", " "),
    ] {
        text = Regex::new(varies).unwrap().replace_all(&text, same).into_owned();
    }
    text.trim_end().to_owned()
}

/// The words of a command line; `'…'` is one.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(i, part)| if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_walk_through_is_what_happens() {
    let config = blocks("yaml")[0];
    let (_, routes) = config.split_once("routes:\n").unwrap();
    let version = |pod: &crate::support::cluster::PodInfo| {
        pod.labels.get("version").cloned().unwrap_or_else(|| "v1".to_owned())
    };
    let stack = Stack::start(&manifest("nginx-canary.yaml"), routes, version).await;
    // The binary, beside the stack's own router, with a token as in a cluster.
    let kubeconfig = stack.cluster.api.kubeconfig();
    let token = stack.folder.path().join("token");
    fs::write(&token, "a-token").unwrap();
    let file = stack.folder.path().join("walkthrough.yaml");
    let state = stack.folder.path().join("walkthrough.json");
    let text = format!(
        "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nstate: {{file: '{}'}}\n\
         admin: {{address: '127.0.0.1:0', tokenFile: '{}'}}\n\
         discovery: {{kubernetes: {{kubeconfig: '{}'}}}}\n{config}",
        state.display(),
        token.display(),
        kubeconfig.display(),
    );
    fs::write(&file, text).unwrap();
    let process = Process::start(&file).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while Client::new(process.admin).get("localhost", "/readyz").await.unwrap().status != 200 {
        assert!(Instant::now() < deadline, "not ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = Client::new(process.web);
    let mut happened = Vec::new();
    for block in blocks("console") {
        let mut text = String::new();
        for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            // Traffic, before anybody looks at it.
            if command == "serinus status" {
                for _ in 0..1_000 {
                    assert_eq!(client.get("shop.example.com", "/").await.unwrap().status, 200);
                }
            }
            let mut serinus = serinus(&words(command.strip_prefix("serinus ").unwrap()));
            serinus.env("SERINUS_ADMIN", process.admin.to_string()).env("SERINUS_TOKEN_FILE", &token);
            text.push_str(&format!("$ {command}\n{}", say(serinus).done()));
        }
        happened.push(text);
    }
    assert_eq!(happened.len(), 4);
    let same =
        blocks("console").iter().zip(&happened).all(|(said, happened)| normal(said) == normal(happened));
    assert!(same, "the blocks of README.md should be:\n{}", happened.join("\n"));
    stack.router.stop().await;
}
