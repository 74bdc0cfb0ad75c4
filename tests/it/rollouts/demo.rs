//! `serinus demo --scenario`, as a newcomer runs it.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::process::{Ending, read_all, say, serinus};

#[test]
fn the_bad_canary_is_taken_back_and_the_demo_says_what_it_cost() {
    let args = ["demo", "--scenario", "bad-canary", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut child = Ending(serinus(&args).spawn().unwrap());
    let _log = read_all(child.0.stderr.take().unwrap());
    let out = BufReader::new(child.0.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Who reads them may have failed.
        out.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok())
    });
    let mut lines = Vec::new();
    let mut until = |needle: &str| loop {
        let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{needle}` in {lines:#?}"));
        lines.push(line.clone());
        if line.contains(needle) {
            return line;
        }
    };
    let routes = until("/api/v1/routes");
    let admin = routes.split("/api/").next().unwrap().trim().to_owned();
    until("rollout started: step 1 of 4");
    until("v2 begins to fail half of its answers");
    let reason = until("rolled back: ");
    assert!(reason.contains("v2 failed ") && reason.contains("e-value"), "{reason}");
    let cost = until("That took ");
    let numbers: Vec<u64> =
        cost.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let [_, _, sent, failed] = numbers[..] else { panic!("{cost}") };
    assert!(failed > 0 && failed < sent, "{cost}");
    let mut history = serinus(&["rollout", "history", "testpage"]);
    history.env("SERINUS_ADMIN", admin);
    let history = say(history).done();
    assert!(history.contains("v1=100 v2=0") && history.contains("rolled back: v2 failed "), "{history}");
    let id = child.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    assert!(child.wait(PATIENCE + Duration::from_secs(10)).success());
}
