//! Rollouts that begin by themselves.

use serinus::rollout::Phase;

use super::{LONG, Running, Shop, Traffic};
use crate::support::eventually;
use crate::support::stack::{Stack, manifest, set_weight, start_router};

fn auto() -> String {
    LONG.replace("{steps", "{auto: true, steps")
}

/// How many pods the canary has, as far as the table knows.
fn canaries(router: &Running) -> usize {
    router.0.control().table().load().routes()[0].versions[1].members.len()
}

async fn has_canaries(router: &Running, count: usize) {
    eventually("the pods are known", || (canaries(router) == count).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_when_the_first_pod_is_ready_and_again_only_for_other_pods() {
    let shop = Shop::new().await;
    shop.write(Some(&auto()), false);
    let router = Running(start_router(shop.file()).await);
    has_canaries(&router, 0).await;
    assert!(router.view().is_none());
    shop.write(Some(&auto()), true);
    let begun = router.until_phase(Phase::Running).await;
    assert_eq!(begun.rollout.step, 0);
    let (source, weight, reason) = router.history().await.pop().unwrap();
    assert_eq!((source.as_str(), weight), ("rollout", 10.0));
    assert_eq!(reason, "rollout started by itself, for v2 has ready pods: step 1 of 3");

    shop.canary.set_failing(true);
    let traffic = Traffic::start(router.web());
    let first = router.until_phase(Phase::RolledBack).await.rollout.started;
    drop(traffic);
    shop.canary.set_failing(false);
    // Neither another config nor a restart begins it anew.
    let generation = router.0.control().table().load().generation();
    shop.write(Some(&auto().replace("20", "30")), true);
    eventually("the config is in force", || {
        (router.0.control().table().load().generation() > generation).then_some(())
    })
    .await;
    assert_eq!(router.view().unwrap().rollout.phase, Phase::RolledBack);
    router.stop().await;
    let router = Running(start_router(shop.file()).await);
    has_canaries(&router, 1).await;
    assert_eq!(router.view().unwrap().rollout.phase, Phase::RolledBack);

    // The pods are gone, which a restart does not forget; those that come are another release's.
    shop.write(Some(&auto()), false);
    has_canaries(&router, 0).await;
    eventually("it is kept", || (shop.state()["routes"]["shop"]["canaryLeft"] == true).then_some(())).await;
    router.stop().await;
    let router = Running(start_router(shop.file()).await);
    assert_eq!(router.view().unwrap().rollout.phase, Phase::RolledBack);
    shop.write(Some(&auto()), true);
    let anew = router.until_phase(Phase::Running).await;
    assert!(anew.rollout.started > first);
    eventually("that is kept too", || shop.state()["routes"]["shop"]["canaryLeft"].is_null().then_some(()))
        .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_begin_where_the_canary_has_a_share_already() {
    let shop = Shop::new().await;
    shop.write(Some(&auto()), false);
    let router = Running(start_router(shop.file()).await);
    set_weight(&router.0, "shop", r#"{"v2": 5}"#).await;
    shop.write(Some(&auto()), true);
    has_canaries(&router, 1).await;
    assert!(router.view().is_none());
    set_weight(&router.0, "shop", r#"{"v2": 0}"#).await;
    router.until_phase(Phase::Running).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_crash_again_and_again_do_not_begin_it_again() {
    let routes = format!(
        "  - name: shop\n    service: web/nginx-svc\n    port: 80\n    versions:\n      \
         - {{name: v1, selector: version!=v2}}\n      - {{name: v2, selector: version=v2}}\n    rollout: {}\n",
        auto()
    );
    let mut stack = Stack::start(&manifest("nginx-canary.yaml"), &routes, |pod| {
        pod.labels.get("version").cloned().unwrap_or_else(|| "v1".to_owned())
    })
    .await;
    let phase = |stack: &Stack| stack.router.control().rollouts().get("shop").map(|view| view.rollout.phase);
    eventually("it begins", || (phase(&stack) == Some(Phase::Running)).then_some(())).await;
    let (admin, abort) = (stack.router.admin(), serde_json::json!({"action": "abort"}));
    let aborted = super::call(admin, "POST /api/v1/routes/shop/rollout", "", &abort);
    assert_eq!(aborted.await.0, 200);
    let canary = stack.cluster.all_pods().into_iter().find(|pod| pod.labels.contains_key("version")).unwrap();
    for ready in [false, true, false, true] {
        stack.cluster.set_ready(&format!("web/{}", canary.name), ready);
        let wanted = usize::from(ready);
        eventually("it is known", || (stack.usable("shop", 1) == wanted).then_some(())).await;
        assert_eq!(phase(&stack), Some(Phase::Aborted), "ready: {ready}");
    }
    stack.router.stop().await;
}
