//! Whether replicas serve the same is said of every route, by the API, by `status` and by the dashboard.

use std::io::Write as _;

use crate::dashboard::picture;
use crate::support::browser::Browser;

use super::*;

/// The routes have none.
const NO_ROLLOUT: &str = "";

impl Replica {
    /// How it sees the other one.
    async fn other(&self) -> Value {
        let answer = Client::new(self.process.admin).get("localhost", "/api/v1/routes").await.unwrap();
        let list: Value = serde_json::from_str(&answer.body).unwrap();
        list["replicas"][1].clone()
    }

    /// Waits until it sees the other one so: whether it lives, and in what it differs.
    async fn sees(&self, live: bool, differs: Value, serves: Value) {
        eventually(&format!("{} sees {differs} {serves} of the other one", self.name), async || {
            let other = self.other().await;
            let as_wanted = other["live"] == live && other["differs"] == differs && other["serves"] == serves;
            (as_wanted && other["differsMore"] == false).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_serves_another_revision_is_known_of_any_route() {
    let group = Group::start(2, NO_ROLLOUT).await;
    group.agree().await;
    let [near, far] = [&group.replicas[0], &group.replicas[1]];
    near.sees(true, json!([]), json!({})).await;
    far.relay.cut();
    assert_eq!(near.weigh("v2", 5.0, "meanwhile", "").await.0, 200);
    // At first it lives, as far as is known; then it does not, and what it said last is told.
    near.sees(true, json!(["shop"]), json!({"shop": 1})).await;
    near.sees(false, json!(["shop"]), json!({"shop": 1})).await;
    far.sees(false, json!([]), json!({})).await;
    let status = near.process.client(&["status"]).done();
    assert!(status.contains("serinus-1 (no sign of life; another revision of shop)"), "{status}");
    far.relay.mend();
    for replica in &group.replicas {
        replica.sees(true, json!([]), json!({})).await;
    }
    assert_eq!(group.agree().await, 5.0);
    // One of them is given another config.
    let mut file = std::fs::OpenOptions::new().append(true).open(&far.file).unwrap();
    let cart = "  - {name: cart, hosts: [cart.example.com], service: web/nginx-svc, port: 80, versions: [{name: all}]}\n";
    file.write_all(cart.as_bytes()).unwrap();
    drop(file);
    near.sees(true, json!(["cart"]), json!({"cart": 1})).await;
    far.sees(true, json!(["cart"]), json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_an_earlier_release_is_known_by_its_rollouts() {
    let group = Group::start(1, STAYS).await;
    let near = &group.replicas[0];
    assert_eq!(near.ask("start").await.0, 200);
    assert_eq!(group.agree().await, 10.0);
    let lease = || group.fleet.cluster.api.get("leases", "serinus", "serinus-state-serinus-0");
    let mut earlier = eventually("it says what it serves", async || {
        lease().filter(|lease| lease["metadata"]["annotations"]["serinus/rollouts"] != "{}")
    })
    .await;
    // That is what an earlier release writes: the same, without what it serves, and an older revision.
    let said = earlier["metadata"]["annotations"].as_object_mut().unwrap();
    assert!(said.remove("serinus/serves").unwrap().as_str().unwrap().contains(r#""routes":{"shop":2}"#));
    let mut standings: Value = serde_json::from_str(said["serinus/rollouts"].as_str().unwrap()).unwrap();
    standings["shop"]["revision"] = json!(1);
    said.insert("serinus/rollouts".to_owned(), json!(standings.to_string()));
    earlier["metadata"]["name"] = json!("serinus-state-serinus-old");
    earlier["spec"]["holderIdentity"] = json!("serinus-old");
    group.fleet.cluster.api.apply(earlier);
    eventually("it is seen", async || (near.other().await["name"] == "serinus-old").then_some(())).await;
    let old = near.other().await;
    assert_eq!((&old["differs"], &old["serves"]), (&json!(["shop"]), &json!({"shop": 1})), "{old}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_says_that_replicas_disagree_as_long_as_they_do() {
    let Some(mut browser) = Browser::start("dashboard of replicas").await else { return };
    let group = Group::start(2, NO_ROLLOUT).await;
    group.agree().await;
    let [near, far] = [&group.replicas[0], &group.replicas[1]];
    let shows = |part: &str, text: &str| {
        format!("document.querySelector({}).innerText.includes({})", json!(part), json!(text))
    };
    let replicas = "[aria-label=Replicas] tbody";
    browser.open(&format!("http://{}/", near.process.admin)).await;
    browser.until(&shows(replicas, "serinus-1\tlive")).await;
    browser.until("document.getElementById('banners').innerText === ''").await;
    far.relay.cut();
    assert_eq!(near.weigh("v2", 5.0, "meanwhile", "").await.0, 200);
    // It says so in time, whether the other one is taken for alive by then or not.
    browser.until(&shows("#banners", "Replicas disagree: ")).await;
    browser.until(&shows("#banners", "revision 1 of shop (serinus-0: 2)")).await;
    browser
        .until(&shows(
            "#banners",
            "no sign of life from serinus-1, which served revision 1 of shop (serinus-0: 2)",
        ))
        .await;
    browser.until(&shows(replicas, "serinus-1\tsilent")).await;
    assert_eq!(browser.eval(&shows("[aria-label=Versions] tbody", "5 %")).await, true);
    picture(&mut browser, "disagree", 0).await;
    // Who looks at the one that is cut off is told, too.
    browser.open(&format!("http://{}/", far.process.admin)).await;
    browser.until(&shows("#banners", "Replicas disagree: no sign of life from serinus-0")).await;
    far.relay.mend();
    browser.until("document.getElementById('banners').innerText === ''").await;
    browser.until(&shows("[aria-label=Versions] tbody", "5 %")).await;
    browser.open(&format!("http://{}/", near.process.admin)).await;
    browser.until(&shows(replicas, "serinus-1\tlive")).await;
    browser.until("document.getElementById('banners').innerText === ''").await;
    // One of another config: it lives, and goes on to differ.
    let text = std::fs::read_to_string(&far.file).unwrap();
    let cart = "  - {name: cart, hosts: [cart.example.com], service: web/nginx-svc, port: 80, versions: [{name: all}]}\n";
    std::fs::write(&far.file, format!("{text}{cart}")).unwrap();
    browser
        .until(&shows("#banners", "serinus-1 serves revision 1 of cart (serinus-0: no such route), since "))
        .await;
    browser.until(&shows(replicas, "serinus-1\tdiffers")).await;
    browser.check_silent();
    std::fs::write(&far.file, text).unwrap();
    browser.until("document.getElementById('banners').innerText === ''").await;
    browser.until(&shows(replicas, "serinus-1\tlive")).await;
    browser.check_silent();
}
