//! What the dashboard's buttons do to the router, and which of them are there.

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
