//! The client commands against a real admin API.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

use std::io::{self, Write};

use clap::Parser;
use serinus::admin::AdminOptions;
use serinus::cli::{self, CliError, ExplainArgs, RolloutArgs, StatusArgs, WeightArgs};

use crate::admin::Router;

#[derive(Debug, Parser)]
enum Command {
    /// Shows how the routes do
    Status(StatusArgs),
    /// Changes weights now
    Weight(WeightArgs),
    /// History and undo
    Rollout(RolloutArgs),
    /// Says what a request would get
    Explain(ExplainArgs),
}

fn run_into(command: &str, out: &mut dyn Write) -> Result<(), CliError> {
    let words = std::iter::once("serinus").chain(command.split('|').flat_map(|w| {
        // `'…'` between bars is one word.
        if w.starts_with('\'') { vec![w.trim_matches('\'')] } else { w.split_whitespace().collect() }
    }));
    let command = Command::try_parse_from(words).map_err(|error| {
        assert_eq!(error.exit_code(), 2, "{error}");
        CliError::Usage(error.to_string())
    })?;
    match command {
        Command::Status(args) => cli::status(&args, out),
        Command::Weight(args) => cli::weight(&args, out),
        Command::Rollout(args) => cli::rollout(&args, out),
        Command::Explain(args) => cli::explain(&args, |_| panic!("no config was given"), out),
    }
}

impl Router {
    /// What a command writes.
    async fn run(&self, command: &str) -> Result<String, CliError> {
        let command = format!("{command} --admin http://{}", self.address);
        tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            run_into(&command, &mut out).map(|()| String::from_utf8(out).unwrap())
        })
        .await
        .unwrap()
    }

    /// The message of a command that fails with this exit status.
    async fn fails(&self, command: &str, exit: u8) -> String {
        let error = self.run(command).await.unwrap_err();
        assert_eq!(error.exit_status(), exit, "{command}: {error}");
        error.to_string()
    }
}

#[tokio::test]
async fn status_in_every_form() {
    let router = Router::open().await;
    router.traffic("shop", 10);
    let table = router.run("status").await.unwrap();
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..5], ["ROUTE", "VERSION", "ASKED", "EFFECTIVE", "MEASURED"]);
    assert_eq!(lines[1][..6], ["shop", "v1", "99.9", "%", "99.9", "%"]);
    assert_eq!(lines[2][..6], ["shop", "v2", "0.1", "%", "0.1", "%"]);
    assert_eq!(lines[4][..4], ["blog", "v1", "99.9", "%"]);
    assert!(!table.contains('\u{1b}'), "no colours off a terminal: {table}");
    let one = router.run("status shop").await.unwrap();
    assert!(one.contains("shop") && !one.contains("blog"), "{one}");
    let endpoints: Vec<Vec<&str>> = one.lines().skip(5).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(endpoints[0], ["VERSION", "ADDRESS", "POD", "STATE", "IN", "FLIGHT"], "{one}");
    assert_eq!(endpoints[1], ["v1", "127.0.1.1:8001", "-", "ready", "0"], "{one}");
    assert_eq!(endpoints[7], ["v2", "127.0.1.1:8007", "-", "ready", "0"], "{one}");

    let json = router.run("status shop -o json").await.unwrap();
    assert_eq!(json.trim_end(), router.get("/api/v1/routes/shop").await.body);
    let yaml = router.run("status -o yaml").await.unwrap();
    let yaml: serde_json::Value = yaml_serde::from_str(&yaml).unwrap();
    assert_eq!(yaml["routes"][0]["versions"][1]["weight"], 0.1);

    let unknown = router.fails("status nix", 1).await;
    assert!(unknown.contains("no route `nix`; there are shop, blog"), "{unknown}");
    router.fails("status -o xml", 2).await;
    router.fails("status a/b", 2).await;
}

#[tokio::test]
async fn weight_history_and_undo() {
    let router = Router::open().await;
    let changed = router.run("weight shop v2=30% v3=0.0001 --reason |'first try'|").await.unwrap();
    let lines: Vec<&str> = changed.lines().collect();
    assert_eq!(lines[0], "route shop is at revision 2");
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["v1", "69.9999", "%", "70", "%", "6"]);
    assert!(changed.contains("note: v3 has no usable pod, so its 0.0001 % go to others"), "{changed}");
    let unchanged = router.run("weight shop v3=0.0001 v2=30").await.unwrap();
    let lines: Vec<&str> = unchanged.lines().collect();
    assert_eq!(lines[0], "nothing changed: v2 is at 30 %, v3 is at 0.0001 % already");
    assert_eq!(lines[1], "route shop is at revision 2", "no revision of its own");

    let history = router.run("rollout history shop").await.unwrap();
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[1].starts_with("REVISION"), "{history}");
    assert!(
        lines[2].starts_with("1 ") && lines[2].contains("file") && lines[2].contains("v1=99.9 v2=0.1 v3=0")
    );
    assert!(lines[3].starts_with("2 ") && lines[3].contains("127.0.0.1") && lines[3].ends_with("first try"));

    assert!(router.run("rollout undo shop").await.unwrap().starts_with("route shop is at revision 3\n"));
    assert!(router.run("rollout undo shop --to-revision 2").await.unwrap().contains("revision 4"));
    let unknown = router.fails("rollout undo shop --to-revision 99", 1).await;
    assert!(unknown.contains("revision 99 is not kept; there are 1, 2, 3, 4"), "{unknown}");
    assert!(router.fails("rollout undo blog", 1).await.contains("nothing to undo"));
    assert!(router.fails("rollout history nix", 1).await.contains("there are shop, blog"));

    let refused = router.fails("weight shop v2=60 v3=60 v9=1", 1).await;
    assert_eq!(refused.lines().count(), 3, "{refused}");
    assert!(refused.contains("no version `v9`") && refused.contains("more than 100 percent"), "{refused}");
    assert!(router.fails("weight nix v2=5", 1).await.contains("there are shop, blog"));
    for usage in [
        "weight shop",
        "weight shop v2",
        "weight shop v2=x",
        "weight shop v2=101",
        "weight shop v2=0.00001",
        "weight shop v2=1 v2=2",
        "rollout undo shop --to-revision x",
        "rollout",
    ] {
        router.fails(usage, 2).await;
    }
    let fine = router.fails("weight shop v2=0.00001", 2).await;
    assert!(fine.contains("finer than one in a million"), "{fine}");
}

#[tokio::test]
async fn explain_asks_the_router() {
    let router = Router::open().await;
    let shop = router.run("explain GET http://shop.example.com/cart").await.unwrap();
    assert!(shop.starts_with("route shop, revision 1\n") && shop.contains("127.0.1.1:8007"), "{shop}");
    let blog = router.run("explain GET / -H |'Host: blog.example.com'|").await.unwrap();
    assert!(blog.starts_with("route blog"), "{blog}");
    assert!(router.run("explain GET http://nix/").await.unwrap().contains("404"));
    router.fails("explain GET shop.example.com", 2).await;
    router.fails("explain |'G T'| http://h/", 2).await;
    router.fails("explain GET / -H nix", 2).await;
}

#[tokio::test]
async fn tokens_come_from_their_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hush\n").unwrap();
    let router =
        Router::start(AdminOptions { token_file: Some(file.path().to_owned()), ..AdminOptions::default() })
            .await;
    let missing = router.fails("weight shop v2=5", 1).await;
    assert!(missing.contains("--token-file"), "{missing}");
    let with = format!("weight shop v2=5 --token-file {}", file.path().display());
    assert!(router.run(&with).await.unwrap().contains("revision 2"));
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), "other").unwrap();
    let wrong = router.fails(&format!("weight shop v2=6 --token-file {}", other.path().display()), 1).await;
    assert!(wrong.contains("is not the one"), "{wrong}");
    std::fs::write(other.path(), "").unwrap();
    let empty = router.fails(&format!("status --token-file {}", other.path().display()), 1).await;
    assert!(empty.contains("is empty"), "{empty}");
}

#[tokio::test]
async fn what_is_no_router_is_said() {
    let gone = Router::open().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let mut out = Vec::new();
    let error = run_into(&format!("status --admin {address}"), &mut out).unwrap_err();
    assert_eq!(error.exit_status(), 1);
    let text = error.to_string();
    assert!(text.starts_with(&format!("no router answers at http://{address}: ")), "{text}");
    assert!(text.contains("serinus run") && text.lines().count() == 2, "{text}");
    let error = gone.fails("status --admin-nix", 2).await;
    assert!(error.contains("--admin-nix"), "{error}");
    // A path at which there is something else.
    let address = gone.address;
    let error = tokio::task::spawn_blocking(move || {
        run_into(&format!("status --admin http://{address}/livez"), &mut Vec::new()).unwrap_err()
    });
    assert!(error.await.unwrap().to_string().contains("/openapi.json"));
    let error = run_into("status --admin ftp://x", &mut Vec::new()).unwrap_err();
    assert_eq!(error.exit_status(), 2);
}

/// A pipe whose reader has left.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_may_leave() {
    let router = Router::open().await;
    let admin = format!("--admin {}", router.address);
    tokio::task::spawn_blocking(move || {
        for command in [
            "status",
            "status -o json",
            "status --watch",
            "weight shop v2=5",
            "rollout history shop",
            "explain GET http://shop.example.com/",
        ] {
            run_into(&format!("{command} {admin}"), &mut Closed).unwrap();
            let error = run_into(&format!("{command} {admin}"), &mut Full).unwrap_err();
            assert!(error.exit_status() == 1 && error.to_string().contains("cannot be written"), "{error}");
        }
    })
    .await
    .unwrap();
}

#[test]
fn help_has_examples_and_says_what_a_command_does() {
    for (command, about, example) in [
        ("status", "Shows how the routes do", "serinus status shop --watch"),
        ("weight", "Changes weights now", "serinus weight shop v2=0.1"),
        ("explain", "Says what a request would get", "serinus explain GET http"),
        ("rollout history", "Shows the last revisions", "serinus rollout history shop"),
        ("rollout undo", "Goes back to the weights", "--to-revision 3"),
    ] {
        let words = std::iter::once("serinus").chain(command.split(' ')).chain(["--help"]);
        let help = Command::try_parse_from(words).unwrap_err().to_string();
        assert!(help.starts_with(about), "{help}");
        assert!(help.contains(example) && help.contains("SERINUS_TOKEN_FILE"), "{help}");
    }
}
