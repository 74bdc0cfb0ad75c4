//! `serinus rollout` as people and pipelines run it, on a router that is killed in between.

use std::time::Duration;

use crate::support::process::{Process, Said, say, serinus};
use crate::support::{PATIENCE, eventually};

use super::{LONG, SHORT, Shop, Traffic};

/// How long a router may take to end.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// Runs a client command beside.
fn beside(process: &Process, args: &[&str]) -> std::thread::JoinHandle<Said> {
    let mut command = serinus(args);
    command.env("SERINUS_ADMIN", process.admin.to_string());
    std::thread::spawn(move || say(command))
}

async fn done(following: std::thread::JoinHandle<Said>) -> Said {
    let deadline = std::time::Instant::now() + PATIENCE + SOON;
    while !following.is_finished() {
        assert!(std::time::Instant::now() < deadline, "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    following.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_follows_to_a_good_end() {
    let shop = Shop::new().await;
    shop.write(Some(SHORT), true);
    let process = Process::start(&shop.file()).await;
    let none = process.client(&["rollout", "status", "shop"]);
    assert!(none.code == Some(1) && none.err.contains("`rollout start shop` begins one"), "{none:?}");
    let started = process.client(&["rollout", "start", "shop", "--reason", "release 7"]).done();
    assert!(started.starts_with("route shop: the rollout of v2 is running: "), "{started}");
    let now = process.client(&["rollout", "status", "shop", "--watch=false"]).done();
    assert!(now.starts_with("route shop: v2 at step 1 of 3, running: ") && now.contains("e-value"), "{now}");
    let table = process.client(&["status"]).done();
    assert!(table.contains("\nRollouts:\n  shop: v2 at step 1 of 3, running: "), "{table}");
    let following = beside(&process, &["rollout", "status", "shop"]);
    let traffic = Traffic::start(process.web);
    let said = done(following).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("succeeded: all 3 steps ended well"), "{said:?}");
    let again = process.client(&["rollout", "status", "shop", "--watch=false"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    let history = process.client(&["rollout", "history", "shop"]).done();
    assert!(history.contains("rollout started: step 1 of 3: release 7"), "{history}");
    drop(traffic);
    process.signal("TERM");
    process.end(SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fails_when_it_was_taken_back() {
    let shop = Shop::new().await;
    shop.write(Some(LONG), true);
    let process = Process::start(&shop.file()).await;
    process.client(&["rollout", "start", "shop"]).done();
    let twice = process.client(&["rollout", "start", "shop"]);
    assert!(twice.code == Some(1) && twice.err.contains("under way already, at step 1 of 3"), "{twice:?}");
    let following = beside(&process, &["rollout", "status", "shop"]);
    shop.canary.set_failing(true);
    let traffic = Traffic::start(process.web);
    let said = done(following).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("the rollout ended rolled-back: rolled back: v2 failed "), "{said:?}");
    let again = process.client(&["rollout", "status", "shop", "--watch=false"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    drop(traffic);
    process.client(&["rollout", "start", "shop"]).done();
    let by_hand = process.client(&["weight", "shop", "v2=3"]).done();
    assert!(by_hand.contains("note: the rollout of v2 is paused: somebody set the weights"), "{by_hand}");
    process.client(&["rollout", "resume", "shop"]).done();
    process.client(&["rollout", "promote", "shop"]).done();
    let full = process.client(&["rollout", "promote", "shop", "--full", "--reason", "go"]).done();
    assert!(full.contains("the rollout of v2 is running: ") && full.contains("100 %"), "{full}");
    let history = process.client(&["rollout", "history", "shop"]).done();
    assert!(history.contains("promoted to the last step, 3 of 3: go"), "{history}");
    process.client(&["rollout", "abort", "shop"]).done();
    let aborted = process.client(&["rollout", "status", "shop"]);
    assert!(aborted.code == Some(1) && aborted.err.contains("ended aborted: aborted"), "{aborted:?}");
    process.signal("TERM");
    process.end(SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_killed_goes_on_where_it_was() {
    let shop = Shop::new().await;
    shop.write(Some(LONG), true);
    let process = Process::start(&shop.file()).await;
    process.client(&["rollout", "start", "shop"]).done();
    process.client(&["rollout", "promote", "shop"]).done();
    let traffic = Traffic::start(process.web);
    let saved = eventually("its evidence is saved", || {
        let rollout = shop.state()["routes"]["shop"]["rollout"].clone();
        let seen = rollout["judge"]["total"]["canary"]["requests"].as_u64()? > 5;
        (seen && rollout["heldMs"].as_u64()? > 0).then_some(rollout)
    })
    .await;
    process.signal("KILL");
    drop(traffic);
    process.end(SOON);
    let process = Process::start(&shop.file()).await;
    let text = process.client(&["status", "shop", "-o", "json"]).done();
    let route: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rollout = &route["rollout"];
    assert_eq!((&rollout["phase"], &rollout["step"]), (&"running".into(), &2.into()), "{rollout}");
    assert_eq!(route["versions"][1]["weight"], 20.0);
    let held = saved["heldMs"].as_f64().unwrap() / 1_000.0;
    assert!(rollout["heldSeconds"].as_f64().unwrap() >= held, "{rollout} after {saved}");
    let seen = saved["judge"]["total"]["canary"]["requests"].as_u64().unwrap();
    assert!(rollout["evidence"]["canary"]["requests"].as_u64().unwrap() >= seen, "{rollout} after {saved}");
    // And is still judged.
    shop.canary.set_failing(true);
    let traffic = Traffic::start(process.web);
    let said = done(beside(&process, &["rollout", "status", "shop"])).await;
    assert!(said.code == Some(1) && said.err.contains("rolled back: v2 failed "), "{said:?}");
    drop(traffic);
    process.signal("TERM");
    process.end(SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_over_goes_on_with_it() {
    let shop = Shop::new().await;
    // One that begins by itself, and that the new process must not begin anew.
    shop.write(Some(&LONG.replace("{steps", "{auto: true, steps")), true);
    let [config, meeting] =
        ["serinus.yaml", "meeting"].map(|n| shop.folder.path().join(n).display().to_string());
    let command = || serinus(&["run", "--config", &config, "--handover", &meeting]);
    let mut old = Process::spawn(command()).await;
    let rollout = |process: &Process| -> serde_json::Value {
        let text = process.client(&["status", "shop", "-o", "json"]).done();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["rollout"].clone()
    };
    eventually("it has begun", || (rollout(&old)["phase"] == "running").then_some(())).await;
    old.client(&["rollout", "promote", "shop"]).done();
    let traffic = Traffic::start(old.web);
    let seen = |process: &Process| rollout(process)["evidence"]["canary"]["requests"].as_u64().unwrap();
    let before = eventually("something is known", || Some(seen(&old)).filter(|seen| *seen > 5)).await;
    let new = Process::spawn(command()).await;
    assert!(old.wait(PATIENCE).success());
    let now = rollout(&new);
    assert_eq!((&now["phase"], &now["step"]), (&"running".into(), &2.into()), "{now}");
    eventually("it is judged on", || (seen(&new) > before).then_some(())).await;
    let history = new.client(&["rollout", "history", "shop"]).done();
    assert_eq!(history.matches("rollout started by itself").count(), 1, "{history}");
    assert_eq!(traffic.failed(), 0);
    drop(traffic);
    new.signal("TERM");
    new.end(SOON);
}
