//! What people ask of a rollout, what they do beside it, and what is refused.

use serde_json::json;
use serinus::rollout::{PausedBy, Phase};

use super::{LONG, Running, Shop, Traffic, call};
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::{set_weight, undo};

async fn weight(router: &Running) -> f64 {
    router.get("/api/v1/routes/shop").await["versions"][1]["weight"].as_f64().unwrap()
}

async fn revision(router: &Running) -> u64 {
    router.get("/api/v1/routes/shop").await["revision"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn start_pause_resume_promote_full_and_abort() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.refuses(json!({"action": "pause"}), 409, "no rollout is under way").await;
    router.refuses(json!({"action": "promote"}), 409, "no rollout is under way").await;
    router.does("start").await;
    router.refuses(json!({"action": "start"}), 409, "under way already, at step 1 of 3").await;
    router.refuses(json!({"action": "resume"}), 409, "not paused").await;
    router.does("pause").await;
    router.refuses(json!({"action": "pause"}), 409, "paused already").await;
    let held = router.until_phase(Phase::Paused(PausedBy::Somebody)).await.rollout.held_ms;
    assert_eq!(router.does("resume").await["rollout"]["phase"], "running");
    router.until("it is judged on", |view| view.rollout.held_ms > held).await;
    assert_eq!(router.does("promote").await["rollout"]["step"], 2);
    assert_eq!(weight(&router).await, 20.0);
    let (status, route) =
        router.ask(json!({"action": "promote", "full": true, "reason": "all is well"})).await;
    assert_eq!(
        (status, &route["rollout"]["step"], &route["versions"][1]["weight"]),
        (200, &3.into(), &100.into())
    );
    let (_, _, reason) = router.history().await.pop().unwrap();
    assert_eq!(reason, "promoted to the last step, 3 of 3: all is well");
    assert_eq!(router.does("abort").await["rollout"]["phase"], "aborted");
    assert_eq!(weight(&router).await, 0.0);
    router.refuses(json!({"action": "abort"}), 409, "no rollout is under way").await;
    // After it, a new one; and the last step ends with a promote.
    router.does("start").await;
    router.ask(json!({"action": "promote", "full": true})).await;
    assert_eq!(router.does("promote").await["rollout"]["phase"], "succeeded");
    assert_eq!(weight(&router).await, 100.0);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_with_pause_waits_for_a_promote() {
    let shop = Shop::new().await;
    let rollout =
        "{steps: [{weight: 10, hold: 0s, pause: true}, {weight: 100, hold: 1h}], guard: {minRequests: 0}}";
    let router = shop.start(rollout).await;
    router.does("start").await;
    router.until_phase(Phase::Paused(PausedBy::Step)).await;
    router.refuses(json!({"action": "resume"}), 409, "`rollout promote` goes on").await;
    assert_eq!(weight(&router).await, 10.0);
    router.does("promote").await;
    assert_eq!(weight(&router).await, 100.0);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_asked_rightly_is_refused_and_changes_nothing() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.refuses(json!({"action": "go"}), 422, "action").await;
    router.refuses(json!({"action": "start", "full": true}), 422, "`full` goes with `promote` alone").await;
    router.refuses(json!({"action": "start", "force": true}), 422, "force").await;
    router.refuses(json!({"action": "start", "reason": "x".repeat(501)}), 422, "501 characters").await;
    let line = "POST /api/v1/routes/shop/rollout";
    let start = json!({"action": "start"});
    let (status, said) = router.call(line, "If-Match: \"7\"\r\n", &start).await;
    assert_eq!((status, said["type"].as_str()), (412, Some("urn:serinus:problem:stale-revision")), "{said}");
    let (status, _) = router.call("POST /api/v1/routes/nix/rollout", "", &start).await;
    assert_eq!(status, 404);
    let plain = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{start}");
    let answer = Client::new(router.0.admin()).raw(plain.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 415, "{answer:?}");
    assert!(router.view().is_none());
    assert_eq!(revision(&router).await, 1);
    let (status, _) = router.call(line, "If-Match: \"1\"\r\n", &start).await;
    assert_eq!(status, 200);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_a_rollout_and_a_third_version_with_a_share_are_told() {
    let shop = Shop::new().await;
    shop.write(None, true);
    let router = Running(crate::support::stack::start_router(shop.file()).await);
    router.refuses(json!({"action": "start"}), 409, "route `shop` has no rollout").await;
    shop.write(Some(LONG), true);
    eventually("the config is in force", || {
        router.0.control().table().load().routes()[0].spec.rollout.is_some().then_some(())
    })
    .await;
    assert_eq!(set_weight(&router.0, "shop", r#"{"v3": 1}"#).await.status, 200);
    router.refuses(json!({"action": "start"}), 409, "v3 has a share too: set its weight to 0 first").await;
    set_weight(&router.0, "shop", r#"{"v3": 0}"#).await;
    router.does("start").await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_needed_where_there_is_one() {
    let shop = Shop::new().await;
    let token = shop.folder.path().join("token");
    std::fs::write(&token, "hush").unwrap();
    let text = shop.config(Some(LONG), true, "");
    let with = format!("admin: {{address: '127.0.0.1:0', tokenFile: {}}}", token.display());
    std::fs::write(shop.file(), text.replace("admin: {address: '127.0.0.1:0'}", &with)).unwrap();
    let router = Running(crate::support::stack::start_router(shop.file()).await);
    let (line, start) = ("POST /api/v1/routes/shop/rollout", json!({"action": "start"}));
    assert_eq!(call(router.0.admin(), line, "", &start).await.0, 401);
    assert_eq!(call(router.0.admin(), line, "Authorization: Bearer hus\r\n", &start).await.0, 401);
    assert!(router.view().is_none());
    assert_eq!(call(router.0.admin(), line, "Authorization: Bearer hush\r\n", &start).await.0, 200);
    let history = router.get("/api/v1/routes/shop/history").await;
    let who = history["revisions"][1]["who"].as_str().unwrap();
    assert_eq!(who, "token@127.0.0.1");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_by_hand_and_undo_pause_it_and_resume_goes_back_to_the_step() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.does("start").await;
    set_weight(&router.0, "shop", r#"{"v2": 3}"#).await;
    let paused = router.until_phase(Phase::Paused(PausedBy::Weights)).await;
    assert!(paused.rollout.reason.contains("`rollout resume` goes back"), "{}", paused.rollout.reason);
    assert_eq!(weight(&router).await, 3.0);
    router.does("resume").await;
    assert_eq!((weight(&router).await, router.view().unwrap().rollout.step), (10.0, 0));

    router.does("promote").await;
    assert_eq!(undo(&router.0, "shop").await.status, 200);
    assert_eq!(weight(&router).await, 10.0, "the weights before");
    router.until_phase(Phase::Paused(PausedBy::Weights)).await;
    router.does("resume").await;
    assert_eq!((weight(&router).await, router.view().unwrap().rollout.step), (20.0, 1));
    // Revisions that left the weights as they were are passed over.
    router.does("pause").await;
    assert_eq!(undo(&router.0, "shop").await.status, 200);
    assert_eq!(weight(&router).await, 10.0);
    // A verdict counts all the same.
    set_weight(&router.0, "shop", r#"{"v2": 50}"#).await;
    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    router.until_phase(Phase::RolledBack).await;
    assert_eq!(weight(&router).await, 0.0);
    drop(traffic);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_version_gets_no_share_meanwhile_but_from_the_file_and_that_is_told() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    set_weight(&router.0, "shop", r#"{"v3": 2}"#).await;
    set_weight(&router.0, "shop", r#"{"v3": 0}"#).await;
    router.does("start").await;
    let put = "PUT /api/v1/routes/shop/weights";
    for (line, body) in
        [(put, json!({"weights": {"v3": 1}})), ("POST /api/v1/routes/shop/undo", json!({"toRevision": 2}))]
    {
        let (status, said) = router.call(line, "", &body).await;
        assert_eq!(
            (status, said["type"].as_str()),
            (409, Some("urn:serinus:problem:third-version")),
            "{said}"
        );
        assert!(said["detail"].as_str().unwrap().contains("`rollout abort` first"), "{said}");
    }
    assert_eq!((weight(&router).await, revision(&router).await), (10.0, 4));
    assert_eq!(router.view().unwrap().rollout.phase, Phase::Running);
    // The file wins, and `status` says what the rollout waits for.
    let text = shop.config(Some(LONG), true, "");
    shop.put(&text.replace("{name: v3,", "{name: v3, weight: 5,"));
    let paused = router.until_phase(Phase::Paused(PausedBy::Weights)).await;
    let words = "v3 has a share too: set its weight to 0 first";
    assert!(paused.rollout.reason.contains(words), "{}", paused.rollout.reason);
    let route = router.get("/api/v1/routes/shop").await;
    assert_eq!((&route["versions"][2]["weight"], &route["rollout"]["phase"]), (&json!(5), &json!("paused")));
    router.refuses(json!({"action": "resume"}), 409, words).await;
    router.refuses(json!({"action": "promote"}), 409, words).await;
    router.refuses(json!({"action": "promote", "full": true}), 409, words).await;
    assert_eq!(set_weight(&router.0, "shop", r#"{"v3": 0}"#).await.status, 200);
    router.does("resume").await;
    assert_eq!((weight(&router).await, router.view().unwrap().rollout.phase), (10.0, Phase::Running));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_drops_the_rollout_takes_the_canary_back() {
    let shop = Shop::new().await;
    let router = shop.start(LONG).await;
    router.does("start").await;
    router.does("promote").await;
    shop.write(None, true);
    let ended = router.until_phase(Phase::Aborted).await;
    assert_eq!(ended.rollout.reason, "aborted: the config has no such rollout any more");
    assert_eq!(weight(&router).await, 0.0);
    let (source, _, reason) = router.history().await.pop().unwrap();
    assert_eq!(
        (source.as_str(), reason.as_str()),
        ("file", "aborted: the config has no such rollout any more")
    );
    // Who follows it sees how it ended.
    assert_eq!(router.get("/api/v1/routes/shop").await["rollout"]["phase"], "aborted");
    router.stop().await;
}
