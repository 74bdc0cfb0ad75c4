//! What the dashboard's buttons do to the router, and which of them are there.

use std::collections::BTreeSet;

use super::*;

/// The buttons of the rollout that can be pressed.
const PRESSABLE: &str = "[...document.querySelectorAll('[aria-label=Rollout] button')]\
                         .filter((b) => !b.hidden && !b.disabled).map((b) => b.textContent).join()";

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_started_only_where_the_config_has_one() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::with("", "").await;
    browser.open(&house.url()).await;
    browser.until(&shows("[aria-label=Rollout]", "The config gives this route no rollout")).await;
    browser.until(&shows("[aria-label=Weights]", "about 1 request in 1,000")).await;
    let buttons =
        "[...document.querySelectorAll('[aria-label=Rollout] button')].filter((b) => !b.hidden).length";
    assert_eq!(browser.eval(buttons).await, 0);
    // It would be refused.
    let start = json!({"action": "start"});
    let refused = call(house.router.admin(), "POST /api/v1/routes/shop/rollout", "", &start).await;
    assert_eq!(refused.0, 409, "{}", refused.1);
    // Once the config has one, it is offered without loading the page again.
    let without = std::fs::read_to_string(&house.file).unwrap();
    std::fs::write(&house.file, format!("{without}    rollout: {LONG}\n")).unwrap();
    browser.until(&format!("{PRESSABLE} === 'Start'")).await;
    browser.until(&shows("[aria-label=Rollout]", "None so far")).await;
    house.begin_rollout().await;
    browser.until(&format!("{PRESSABLE} === 'Pause,Promote,Promote fully,Abort'")).await;
    // And when it has none any more, nothing can be asked of the one that was under way.
    std::fs::write(&house.file, without).unwrap();
    browser.until(&shows("[aria-label=Rollout]", "The config gives this route no rollout any more")).await;
    browser.until(&format!("{PRESSABLE} === ''")).await;
    browser.check_silent();
}

/// Presses a verb, and says why.
async fn press(browser: &mut Browser, verb: &str, reason: &str) {
    click(browser, verb).await;
    browser.until("document.activeElement.id === 'reason'").await;
    browser.write(reason).await;
    click(browser, verb).await;
    browser.until("!document.querySelector('dialog')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_takes_everything_from_the_version() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    let web = house.router.listeners()[0].1;
    house.begin_rollout().await;
    house.until_asked(100_000).await;
    let counts = count_versions(web, "shop.example.com", 2, 100, |answer| answer.version().to_owned()).await;
    check_share(&counts, 100, 100_000);
    browser.open(&house.url()).await;
    browser.until(&shows("[aria-label=Rollout] .tag", "running")).await;
    // Thought better of.
    click(&mut browser, "Abort").await;
    browser.until(&shows("dialog[open]", "v2 is at step 1 of 3.")).await;
    click(&mut browser, "Cancel").await;
    assert_eq!(house.asked().0, 100_000);
    press(&mut browser, "Abort", "it smells").await;
    house.until_asked(0).await;
    let counts = count_versions(web, "shop.example.com", 2, 200, |answer| answer.version().to_owned()).await;
    assert_eq!(counts.get("v2"), None, "{counts:?}");
    assert_eq!(house.last_reason().await, "aborted: it smells");
    browser.until(&shows("[aria-label=Rollout] .tag", "aborted")).await;
    browser.until(&shows("[aria-label=History] tbody", "aborted: it smells")).await;
    browser.until(&shows("[aria-label=Versions] tbody", "100 %")).await;
    browser.until(&format!("{PRESSABLE} === 'Start'")).await;
    browser.check_silent();
}

#[tokio::test(flavor = "multi_thread")]
async fn promote_fully_gives_the_version_everything() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::new("").await;
    let web = house.router.listeners()[0].1;
    house.begin_rollout().await;
    browser.open(&house.url()).await;
    browser.until(&shows("[aria-label=Rollout]", "left in step 1 of 3")).await;
    press(&mut browser, "Promote fully", "the day is short").await;
    house.until_asked(1_000_000).await;
    let counts = count_versions(web, "shop.example.com", 2, 200, |answer| answer.version().to_owned()).await;
    assert_eq!(counts.get("v2"), Some(&200), "{counts:?}");
    browser.until(&shows("[aria-label=Rollout]", "step 3 of 3")).await;
    let here =
        "document.querySelector('[aria-label=Rollout] [aria-current=step]').textContent.startsWith('100 %')";
    browser.until(here).await;
    browser.until(&shows("[aria-label=History] tbody", "the day is short")).await;
    browser.check_silent();
}

/// How many users ask.
const USERS: usize = 400;

/// Has each user ask once; those who get v2.
async fn canary_users(house: &House) -> BTreeSet<usize> {
    let mut client = Client::new(house.router.listeners()[0].1);
    let mut found = BTreeSet::new();
    for user in 0..USERS {
        let request = format!("GET / HTTP/1.1\r\nHost: shop.example.com\r\nX-User: user-{user}\r\n\r\n");
        let answer = client.raw(request.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        if answer.version() == "v2" {
            found.insert(user);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_of_a_cohort_is_changed_by_users() {
    let Some(mut browser) = Browser::start("dashboard").await else { return };
    let house = House::with("", "    cohort: {header: X-User, salt: s}\n").await;
    browser.open(&house.url()).await;
    let mut before = canary_users(&house).await;
    for percent in [25_usize, 60] {
        // Who would be affected, of those who came under the revision in force: once all of them are counted, before it is asked and then.
        let preview = |of: &str| {
            format!(
                "(([, some, all]) => Math.abs(all - {USERS}) <= {} && Math.abs(some - all * {percent} / 100) <= 1)\
                 (document.querySelector('{of}').innerText.match(/users: about ([\\d,]+) of ([\\d,]+)/))",
                USERS / 10
            )
        };
        browser.eval("document.getElementById('weight-v2').focus()").await;
        retype(&mut browser, &percent.to_string()).await;
        browser.until(&preview(".who")).await;
        click(&mut browser, "Change…").await;
        browser.until(&preview("dialog[open]")).await;
        browser.keys(&["Enter"]).await;
        house.until_asked(u32::try_from(percent).unwrap() * 10_000).await;
        let now = canary_users(&house).await;
        // So many as it said, but for the luck of 400, and those who had it have it.
        assert!(now.len().abs_diff(USERS * percent / 100) < USERS / 12, "{percent} %: {}", now.len());
        assert!(now.is_superset(&before), "{before:?} {now:?}");
        before = now;
        browser
            .until(&format!("!document.querySelector('dialog') && {}", shows(".said", "Changed: revision")))
            .await;
        // The column of users says which part of them the version got.
        let part = format!(
            "Math.abs(Number(document.querySelectorAll('[aria-label=Versions] tbody tr')[1].cells[9].innerText.match(/\\((.*) %\\)/)[1]) - {}) < 8",
            before.len() * 100 / USERS
        );
        browser.until(&part).await;
    }
    browser.check_silent();
}
