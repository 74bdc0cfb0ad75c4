//! The way of a rollout by itself: forward on evidence, and back.

use serinus::model::Counts;
use serinus::rollout::{PausedBy, Phase};

use super::{LONG, Running, SHORT, Shop, Traffic};
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::start_router;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_canary_comes_to_the_end() {
    let shop = Shop::new().await;
    let router = shop.start(SHORT).await;
    let traffic = Traffic::start(router.web());
    let route = router.does("start").await;
    assert_eq!(route["rollout"]["step"], 1);
    assert_eq!(route["versions"][1]["weight"], 10.0);
    let ended = router.until_phase(Phase::Succeeded).await;
    assert!(ended.findings.total.canary.requests > 0 && ended.findings.total.canary.errors == 0);
    traffic.more(20).await;
    assert_eq!(traffic.failed(), 0);
    let history = router.history().await;
    let wanted = [
        ("file", 0.0, ""),
        ("admin", 10.0, "rollout started: step 1 of 3"),
        ("rollout", 50.0, "step 2 of 3: step 1 ended well"),
        ("rollout", 100.0, "step 3 of 3: step 2 ended well"),
        ("rollout", 100.0, "all 3 steps ended well"),
    ];
    let wanted = wanted.map(|(source, weight, reason)| (source.to_owned(), weight, reason.to_owned()));
    assert_eq!(history, wanted);
    let metrics = router.metrics().await;
    for sample in [
        "serinus_rollout_phase{route=\"shop\",phase=\"succeeded\"} 1",
        "serinus_rollout_phase{route=\"shop\",phase=\"running\"} 0",
        "serinus_rollout_step{route=\"shop\"} 3",
        "serinus_rollout_e_value_log10{route=\"shop\",test=\"errors\"} ",
        "serinus_rollout_e_value_threshold_log10{route=\"shop\"} ",
    ] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
    drop(traffic);
    router.stop().await;
}

/// Sends a request of each of these users, so many times.
async fn come(router: &Running, users: std::ops::Range<u32>, times: u32) {
    let mut client = Client::new(router.web());
    for user in users.flat_map(|user| std::iter::repeat_n(user, times as usize)) {
        let request = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-User: user-{user}\r\n\r\n");
        client.raw(request.as_bytes()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_3_a_user_who_fails_again_and_again_counts_once() {
    let shop = Shop::new().await;
    let rollout = "{steps: [{weight: 50, hold: 1h}]}";
    shop.put(&shop.config(Some(rollout), true, "    cohort: {header: X-User, salt: s}\n"));
    let router = Running(start_router(shop.file()).await);
    router.does("start").await;
    shop.canary.set_failing(true);
    // Of two users one is the canary's, whatever the request.
    let (mut user, mut met) = (0, 0);
    while met == 0 {
        user += 1;
        come(&router, user..user + 1, 1).await;
        met = eventually("it is counted", || {
            let total = router.view()?.findings.total;
            (total.stable.requests + total.canary.requests == u64::from(user)).then_some(total.canary.errors)
        })
        .await;
    }
    // Every second one fails.
    come(&router, user..user + 1, 300).await;
    let view = router.until("all of it is seen", |view| view.findings.total.canary.requests == 301).await;
    assert_eq!((view.rollout.phase, view.findings.total.canary.errors), (Phase::Running, 151));
    // Had requests been dealt out, a dozen of them would have been enough. Other users count.
    come(&router, 1_000..1_100, 1).await;
    router.until_phase(Phase::RolledBack).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_4_a_bad_canary_is_taken_back_and_the_history_says_why() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    let traffic = Traffic::start(router.web());
    router.does("start").await;
    // Well at first.
    router.until("the canary has had requests", |view| view.findings.total.canary.requests >= 5).await;
    shop.canary.set_failing(true);
    let ended = router.until_phase(Phase::RolledBack).await;
    assert!(ended.rollout.reason.starts_with("rolled back: v2 failed "), "{}", ended.rollout.reason);
    let history = router.history().await;
    let (source, weight, reason) = history.last().unwrap();
    assert_eq!((source.as_str(), *weight), ("rollout", 0.0));
    let Counts { requests, errors, .. } = ended.findings.total.canary;
    let said = format!("v2 failed {errors} of {requests} first attempts, v1 0 of ");
    assert!(
        reason.contains(&said) && reason.contains("; e-value ") && reason.ends_with("> 1000"),
        "{reason}"
    );
    // Nobody meets it any more, though it goes on failing; and it is not tried again.
    traffic.more(20).await;
    let failed = traffic.failed();
    traffic.more(200).await;
    assert_eq!(traffic.failed(), failed);
    assert_eq!(router.view().unwrap().rollout.phase, Phase::RolledBack);
    let metrics = router.metrics().await;
    assert!(metrics.contains("serinus_rollout_phase{route=\"shop\",phase=\"rolled-back\"} 1"), "{metrics}");
    // What is asked for now begins anew, with nothing against it.
    shop.canary.set_failing(false);
    router.does("start").await;
    let anew = router.until_phase(Phase::Running).await;
    assert_eq!((anew.rollout.step, anew.findings.total.canary.errors), (0, 0));
    drop(traffic);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_4_with_on_fail_pause_somebody_decides() {
    let shop = Shop::new().await;
    let router = shop.start(&LONG.replace("{steps", "{onFail: pause, steps")).await;
    let traffic = Traffic::start(router.web());
    shop.canary.set_failing(true);
    router.does("start").await;
    let paused = router.until_phase(Phase::Paused(PausedBy::Verdict)).await;
    assert!(paused.rollout.reason.starts_with("paused: v2 failed "), "{}", paused.rollout.reason);
    assert_eq!(router.get("/api/v1/routes/shop").await["versions"][1]["weight"], 10.0);
    shop.canary.set_failing(false);
    router.does("resume").await;
    let anew = router.until("it is judged anew", |view| view.findings.total.canary.requests >= 20).await;
    assert_eq!(anew.rollout.phase, Phase::Running, "{}", anew.rollout.reason);
    drop(traffic);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_4_a_step_without_traffic_waits_and_says_so() {
    let shop = Shop::new().await;
    let router =
        shop.start("{steps: [{weight: 10, hold: 0s}, {weight: 100}], guard: {minRequests: 7}}").await;
    router.does("start").await;
    let said = "v2 has had 0 of the 7 requests that a step needs";
    router.until("it says so", |view| view.rollout.reason == said).await;
    let traffic = Traffic::start(router.web());
    router.until("it goes on", |view| view.rollout.step == 1).await;
    drop(traffic);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_in_the_same_step_with_its_evidence() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    let traffic = Traffic::start(router.web());
    router.does("start").await;
    router.does("promote").await;
    router
        .until("some is known", |view| view.rollout.held_ms > 100 && view.findings.step.canary.requests > 5)
        .await;
    eventually("it is saved", || {
        let rollout = shop.state()["routes"]["shop"]["rollout"].clone();
        (rollout["heldMs"].as_u64()? > 100).then_some(())
    })
    .await;
    drop(traffic);
    router.stop().await;
    let saved = shop.state()["routes"]["shop"]["rollout"].clone();
    assert_eq!((&saved["version"], &saved["step"]), (&"v2".into(), &1.into()), "{saved}");

    let router = shop.start(LONG).await;
    let again = router.view().unwrap();
    assert_eq!((again.rollout.phase, again.rollout.step), (Phase::Running, 1));
    assert!(again.rollout.held_ms >= saved["heldMs"].as_u64().unwrap());
    assert!(again.findings.total.canary.requests > 0 && again.findings.step.canary.requests > 0);
    assert_eq!(router.get("/api/v1/routes/shop").await["versions"][1]["weight"], 20.0);
    let (held, requests) = (again.rollout.held_ms, again.findings.total.canary.requests);
    let traffic = Traffic::start(router.web());
    router
        .until("it goes on", |view| {
            view.rollout.held_ms > held && view.findings.total.canary.requests > requests
        })
        .await;
    drop(traffic);
    router.stop().await;
}
