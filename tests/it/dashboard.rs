//! The dashboard as people use it: in a real browser, before a real router.
//!
//! `SERINUS_SCREENSHOTS=1` has these tests write the pictures of `docs/dashboard/`, which takes minutes: their charts need time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers fail the test"
)]

mod verbs;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use serinus::cli::app::Router;
use serinus::demo::Testpage;
use tempfile::TempDir;

use crate::rollouts::{Traffic, call};
use crate::support::browser::Browser;
use crate::support::eventually;
use crate::support::http::Client;
use crate::support::stack::{check_share, count_versions, set_weight, start_router};

/// A rollout that stays where it is.
const LONG: &str = "{steps: [{weight: 10, hold: 1h}, {weight: 50, hold: 1h}, {weight: 100, hold: 1h}], guard: {minRequests: 20}}";

/// Two pods of v1, one of v2, and a router before them.
struct House {
    canary: Testpage,
    _stable: [Testpage; 2],
    _folder: TempDir,
    file: PathBuf,
    router: Router,
}

impl House {
    /// With these further lines for `admin`, and a rollout.
    async fn new(admin: &str) -> Self {
        Self::with(admin, &format!("    rollout: {LONG}\n")).await
    }

    /// With these further lines for `admin`, and for the route.
    async fn with(admin: &str, route: &str) -> Self {
        let stable = [Testpage::start(1, "v1").await.unwrap(), Testpage::start(2, "v1").await.unwrap()];
        let canary = Testpage::start(3, "v2").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut text = format!(
            "listeners: [{{name: web, address: '127.0.0.1:0'}}]\nadmin: {{address: '127.0.0.1:0'{admin}}}\n\
             state: {{file: {}}}\ndrain: {{delay: 0s, timeout: 2s}}\ndiscovery:\n  static:\n    web/shop:\n",
            folder.path().join("state.json").display(),
        );
        for (pod, version) in [(&stable[0], "v1"), (&stable[1], "v1"), (&canary, "v2")] {
            writeln!(text, "      - {{address: '{}', labels: {{version: {version}}}}}", pod.address())
                .unwrap();
        }
        text += "routes:\n  - name: shop\n    service: web/shop\n    versions: [{name: v1, selector: version=v1}, \
                 {name: v2, selector: version=v2, weight: 0.1}]\n";
        text += route;
        let file = folder.path().join("serinus.yaml");
        std::fs::write(&file, text).unwrap();
        Self { canary, _stable: stable, router: start_router(file.clone()).await, file, _folder: folder }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.router.admin())
    }

    /// What is asked of v2 by now, in millionths, and at which revision.
    fn asked(&self) -> (u32, u64) {
        let table = self.router.control().table().load();
        let route = table.route("shop").unwrap();
        (route.versions[1].asked.millionths(), route.revision.0)
    }

    async fn until_asked(&self, millionths: u32) {
        eventually("the weight is in force", || (self.asked().0 == millionths).then_some(())).await;
    }

    async fn last_reason(&self) -> Value {
        let answer =
            Client::new(self.router.admin()).get("localhost", "/api/v1/routes/shop/history").await.unwrap();
        let history: Value = serde_json::from_str(&answer.body).unwrap();
        history["revisions"].as_array().unwrap().last().unwrap()["reason"].clone()
    }

    async fn begin_rollout(&self) {
        let begun =
            call(self.router.admin(), "POST /api/v1/routes/shop/rollout", "", &json!({"action": "start"}))
                .await;
        assert_eq!(begun.0, 200, "{}", begun.1);
    }
}

/// Where pictures go; nothing where none are wanted.
fn pictures() -> Option<PathBuf> {
    let wanted = std::env::var_os("SERINUS_SCREENSHOTS").is_some_and(|value| value == "1");
    wanted.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dashboard"))
}

/// Takes a picture where they are wanted, when the charts have so many samples.
pub(crate) async fn picture(browser: &mut Browser, name: &str, samples: u32) {
    let Some(folder) = pictures() else { return };
    for wanted in (0..=samples).step_by(4) {
        let grown = format!(
            "window.enough >= {wanted} || (async () => {{ window.enough = (await (await \
                             fetch('/api/v1/routes/shop/series')).json()).ends.length; }})() && window.enough >= {wanted}"
        );
        browser.until(&grown).await;
    }
    // The newest of them is drawn.
    browser.eval("new Promise((done) => setTimeout(done, 1500))").await;
    std::fs::create_dir_all(&folder).unwrap();
    browser.picture(&folder.join(format!("{name}.png"))).await;
}

/// The text of a part of the page contains this.
fn shows(part: &str, text: &str) -> String {
    format!("document.querySelector({}).innerText.includes({})", json!(part), json!(text))
}

/// Puts this into the field that has the focus, in place of what is there.
async fn retype(browser: &mut Browser, text: &str) {
    browser.eval("document.activeElement.select()").await;
    browser.write(text).await;
}

/// Clicks a button, of the dialog where one is open.
async fn click(browser: &mut Browser, button: &str) {
    let find = format!(
        "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button')]\
         .find((b) => !b.disabled && !b.hidden && b.textContent === {})",
        json!(button)
    );
    browser.until(&find).await;
    browser.eval(&format!("{find}.click()")).await;
}

/// Asks for a share of v2 through the page, with a reason.
async fn change_weight(browser: &mut Browser, percent: &str, reason: &str) {
    browser.eval("document.getElementById('weight-v2').focus()").await;
    retype(browser, percent).await;
    click(browser, "Change…").await;
    browser.until("document.activeElement.id === 'reason'").await;
    browser.write(reason).await;
    browser.keys(&["Enter"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_what_happens_and_changes_weights_and_says_when_the_router_is_gone() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    let web = house.router.listeners()[0].1;
    let traffic = Traffic::start(web);
    browser.open(&house.url()).await;
    browser.until(&shows("#route h2", "shop")).await;
    browser.until(&shows("[aria-label=Versions] tbody", "99.9 %")).await;
    browser.until("document.getElementById('link').textContent === 'live'").await;
    // Requests, and in the charts too.
    browser
        .until("Number(document.querySelector('[aria-label=Versions] tbody tr').cells[5].textContent) > 0")
        .await;
    browser.until("document.querySelectorAll('.chart canvas').length === 4").await;
    browser.until("Number(document.querySelector('.legend b').textContent) > 0").await;
    browser.until(&shows("[aria-label=Pods]", "3 ready")).await;
    picture(&mut browser, "idle", 16).await;

    // Somebody else's change is shown without being asked for.
    assert_eq!(set_weight(&house.router, "shop", r#"{"v2": 5}"#).await.status, 200);
    browser.until(&shows("[aria-label=Versions] tbody", "5 %")).await;
    browser.until(&shows("[aria-label=History] tbody", "test")).await;
    browser.until(&shows("[aria-label=Events] tbody", "revision 2")).await;
    browser.until("document.getElementById('weight-v2').value === '5'").await;

    // The preview, before anything is done.
    browser.eval("document.getElementById('weight-v2').focus()").await;
    retype(&mut browser, "0.0001").await;
    browser.until(&shows(".who", "about 1 request in 1,000,000; at the present rate about")).await;
    browser.until(&shows(".who", "pods: 1")).await;
    retype(&mut browser, "0.00001").await;
    browser.until(&shows(".who", "no finer than 0.0001 %")).await;
    browser
        .until("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Change…').disabled")
        .await;
    assert_eq!(house.asked(), (50_000, 2));

    change_weight(&mut browser, "30", "first users").await;
    house.until_asked(300_000).await;
    browser.until(&shows(".said", "revision 3")).await;
    assert_eq!(house.last_reason().await, "first users");
    drop(traffic);
    let counts =
        count_versions(web, "shop.example.com", 2, 1_000, |answer| answer.version().to_owned()).await;
    check_share(&counts, 1_000, 300_000);

    // Between the look and the change somebody else changes it: nothing is done, and it says so.
    browser.eval("document.getElementById('weight-v2').focus()").await;
    retype(&mut browser, "40").await;
    click(&mut browser, "Change…").await;
    browser.until("document.activeElement.id === 'reason'").await;
    assert_eq!(set_weight(&house.router, "shop", r#"{"v2": 2}"#).await.status, 200);
    browser.keys(&["Enter"]).await;
    browser.until(&shows("dialog[open]", "somebody else changed the route in between")).await;
    assert_eq!(house.asked(), (20_000, 4));
    click(&mut browser, "Show what is in force").await;
    browser.until("document.getElementById('weight-v2').value === '2'").await;

    click(&mut browser, "Undo…").await;
    browser.until("document.activeElement.id === 'reason'").await;
    browser.keys(&["Enter"]).await;
    house.until_asked(300_000).await;
    browser.until(&shows("[aria-label=Versions] tbody", "30 %")).await;

    browser.check_silent();
    house.router.stop().await;
    browser.until(&shows("#banners", "No connection to the router.")).await;
    browser.until("document.body.classList.contains('stale')").await;
    browser.until("document.getElementById('weight-v2').disabled").await;
    assert_eq!(
        browser.eval(&shows("[aria-label=Versions] tbody", "30 %")).await,
        true,
        "what was shown stays"
    );
    picture(&mut browser, "lost", 0).await;
    browser.check_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_started_followed_and_taken_back() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    assert_eq!(set_weight(&house.router, "shop", r#"{"v2": 0}"#).await.status, 200);
    let _traffic = Traffic::start(house.router.listeners()[0].1);
    browser.theme("dark").await;
    browser.open(&house.url()).await;
    click(&mut browser, "Start").await;
    click(&mut browser, "Start").await;
    house.until_asked(100_000).await;
    browser.until(&shows("[aria-label=Rollout]", "running")).await;
    browser.until(&shows("[aria-label=Rollout]", "left in step 1 of 3")).await;
    browser.until("document.querySelector('[aria-label=Rollout] [aria-current=step]').textContent.startsWith('10 %')").await;
    for (verb, shown) in [("Pause", "paused"), ("Resume", "running"), ("Promote", "step 2 of 3")] {
        click(&mut browser, verb).await;
        browser.until("document.querySelector('dialog[open]')").await;
        browser.eval("document.querySelector('dialog[open] button[type=submit]').click()").await;
        browser.until(&shows("[aria-label=Rollout]", shown)).await;
        browser.until("!document.querySelector('dialog')").await;
    }
    house.until_asked(500_000).await;
    picture(&mut browser, "shifting", 12).await;
    house.canary.set_failing(true);
    browser.until(&shows("[aria-label=Rollout] .tag", "rolled back")).await;
    browser.until(&shows("[aria-label=History] tbody", "rolled back: v2 failed")).await;
    browser.until(&shows("[aria-label=Events] tbody", "rolled-back")).await;
    browser.until(&shows("#list", "rolled back")).await;
    house.until_asked(0).await;
    picture(&mut browser, "rolled-back", 20).await;
    browser.check_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_nothing_runs_out_of_the_screen_and_keys_are_enough() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    house.begin_rollout().await;
    let _traffic = Traffic::start(house.router.listeners()[0].1);
    for width in [320, 390] {
        browser.screen(width, 844).await;
        browser.open(&house.url()).await;
        browser.until(&shows("[aria-label=Pods]", "3 ready")).await;
        browser.until(&shows("[aria-label=History] tbody", "rollout started")).await;
        browser.until("document.querySelectorAll('.chart canvas').length === 4").await;
        let wide = browser.eval("document.documentElement.scrollWidth").await;
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} of {width}");
    }
    picture(&mut browser, "phone", 8).await;
    browser.screen(1280, 900).await;
    browser.eval("document.getElementById('find').focus()").await;
    browser.tab_to("at.type === 'range'").await;
    let before = browser.eval("document.getElementById('weight-v2').value").await;
    browser.keys(&["ArrowRight", "ArrowRight"]).await;
    browser.until(&format!("document.getElementById('weight-v2').value !== {before}")).await;
    browser.until("document.activeElement.getAttribute('aria-valuetext') === '20 %'").await;
    browser.tab_to("at.textContent === 'Change…'").await;
    browser.keys(&["Enter"]).await;
    browser.until(&shows("dialog[open]", "This pauses the rollout that runs.")).await;
    // Away again, and nothing is done; the focus is back.
    browser.keys(&["Escape"]).await;
    browser
        .until("!document.querySelector('dialog') && document.activeElement.textContent === 'Change…'")
        .await;
    assert_eq!(house.asked().0, 100_000);
    browser.keys(&["Enter"]).await;
    browser.until("document.activeElement.id === 'reason'").await;
    browser.tab_to("at.textContent === 'Change'").await;
    browser.keys(&["Enter"]).await;
    house.until_asked(200_000).await;
    browser.check_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_it_only_reads() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hush").unwrap();
    let house = House::new(&format!(", tokenFile: {}", secret.path().display())).await;
    browser.open(&house.url()).await;
    browser.until(&shows("#banners", "Read-only: changes need the token")).await;
    browser.until("document.getElementById('weight-v2').disabled").await;
    browser.until("[...document.querySelectorAll('#route button')].filter((b) => !b.hidden).every((b) => b.disabled)").await;
    for (token, shown) in [("wrong", "not the one in the router's token file"), ("hush", "")] {
        if browser.eval("document.querySelector('dialog') === null").await == true {
            click(&mut browser, "Give the token…").await;
        }
        browser.until("document.activeElement.id === 'token-text'").await;
        retype(&mut browser, token).await;
        browser.keys(&["Enter"]).await;
        if !shown.is_empty() {
            browser.until(&shows("dialog[open]", shown)).await;
            browser.eval("document.getElementById('token-text').focus()").await;
        }
    }
    browser.until("!document.querySelector('dialog')").await;
    browser.until("document.getElementById('banners').innerText === ''").await;
    change_weight(&mut browser, "7", "").await;
    house.until_asked(70_000).await;
    // It is nowhere that outlives the tab.
    let kept = browser.eval("[localStorage.length, document.cookie, location.href.includes('hush')]").await;
    assert_eq!(kept, json!([0, "", false]));
    click(&mut browser, "Forget the token").await;
    browser.until(&shows("#banners", "Read-only: changes need the token")).await;
    assert_eq!(browser.eval("sessionStorage.length").await, 0);
    browser.check_silent();
}

/// Markup that runs a script where it is taken for markup.
const HOSTILE: &str = r#"<img src=x onerror="alert(1)"><script>alert(2)</script>"#;

#[tokio::test(flavor = "multi_thread")]
async fn names_and_reasons_are_text_whatever_they_are() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    house.begin_rollout().await;
    // A reason by the API; names of routes, versions and pods cannot be such ones, so the answers are changed on their way to the
    // page.
    let body = json!({"weights": {"v2": 5}, "reason": HOSTILE});
    let changed = call(house.router.admin(), "PUT /api/v1/routes/shop/weights", "", &body).await;
    assert_eq!(changed.0, 200);
    browser.before_each_page("window.violations = []; addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));").await;
    browser.open(&house.url()).await;
    browser.until(&shows("[aria-label=History] tbody", HOSTILE)).await;
    let hostile = json!(HOSTILE);
    browser
        .before_each_page(&format!(
            "const bad = {hostile}; const ask = fetch; window.fetch = (path, options) => \
             ask(path.replaceAll(encodeURIComponent(bad), ''), options); \
             const real = Response.prototype.json; Response.prototype.json = async function () {{ \
             const walk = (value, key) => typeof value === 'string' && key !== 'phase' ? bad + value \
             : Array.isArray(value) ? value.map((one) => walk(one, key)) \
             : value && typeof value === 'object' ? Object.fromEntries(Object.entries(value).map(([k, v]) => \
             [key === 'after' ? bad + k : k, walk(v, k)])) : value; return walk(await real.call(this)); }};"
        ))
        .await;
    browser.open(&format!("{}?again", house.url())).await;
    for part in [
        "#route h2",
        "[aria-label=Versions] tbody",
        "[aria-label=Pods] tbody",
        "#list",
        "[aria-label=Rollout]",
        "[aria-label=History] tbody",
        ".legend",
        "[aria-label=Weights]",
    ] {
        browser.until(&shows(part, HOSTILE)).await;
    }
    // The same in what asks before a change is made.
    click(&mut browser, "Undo…").await;
    browser.until(&shows("dialog[open]", HOSTILE)).await;
    assert_eq!(browser.eval("document.querySelectorAll('img, #route script').length").await, 0);
    assert_eq!(browser.eval("violations").await, json!([]));
    browser.check_silent();
    // And the policy that would have kept a script from running is there.
    let answer = Client::new(house.router.admin()).get("localhost", "/").await.unwrap();
    let policy = answer.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; ") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(
        (answer.header("x-content-type-options"), answer.header("cache-control")),
        ("nosniff", "no-store")
    );
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_routes_and_a_thousand_pods_are_shown() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut text = "listeners: [{name: web, address: '127.0.0.1:0'}]\nadmin: {address: '127.0.0.1:0'}\n\
                    drain: {delay: 0s, timeout: 2s}\ndiscovery:\n  static:\n"
        .to_owned();
    for service in 0..200 {
        writeln!(text, "    web/svc-{service}:").unwrap();
        for pod in 1..=5 {
            let version = if pod == 5 { "v2" } else { "v1" };
            writeln!(
                text,
                "      - {{address: '127.0.{}.{pod}:9', labels: {{version: {version}}}}}",
                service + 2
            )
            .unwrap();
        }
    }
    text += "routes:\n";
    for service in 0..200 {
        writeln!(
            text,
            "  - {{name: route-{service}, service: web/svc-{service}, hosts: [h{service}.example.com], \
             versions: [{{name: v1, selector: version=v1}}, {{name: v2, selector: version=v2, weight: 1}}]}}"
        )
        .unwrap();
    }
    let file = folder.path().join("serinus.yaml");
    std::fs::write(&file, text).unwrap();
    let router = start_router(file).await;
    browser.open(&format!("http://{}/#/route-137", router.admin())).await;
    browser.until(&shows("#route h2", "route-137")).await;
    browser.until("document.querySelectorAll('#list li').length === 200").await;
    browser.until(&shows("[aria-label=Pods]", "5 ready")).await;
    browser.eval("document.getElementById('find').focus()").await;
    browser.write("route-19").await;
    browser.until("document.querySelectorAll('#list li').length === 11").await;
    browser.tab_to("at.getAttribute('href') === '#/route-199'").await;
    browser.keys(&["Enter"]).await;
    browser.until(&shows("#route h2", "route-199")).await;
    let wide = browser.eval("document.documentElement.scrollWidth <= innerWidth").await;
    assert_eq!(wide, true);
    browser.check_silent();
    router.stop().await;
}
