//! What happens to rollouts: each event is one log line, and is told to those who listen.

use crate::model::{HookEvent, RouteName};

use super::Telemetry;
use super::metrics::{DROPPED, FAILURE, SUCCESS};
use super::news::{News, RolloutNews};

impl Telemetry {
    /// A rollout came to another step or phase.
    pub fn rollout_moved(&self, news: RolloutNews) {
        let RolloutNews { route, version, phase, step, steps, weight, reason, revision } = &news;
        tracing::info!(%route, %version, phase, step, steps, %weight, %revision, reason, "rollout moved");
        self.tell(|| News::Rollout(news));
    }

    /// A webhook took what it was told, or let a step begin.
    pub fn hook_succeeded(&self, route: &RouteName, event: HookEvent, hook: &str) {
        self.hooks.with_label_values(&[event.token(), SUCCESS]).inc();
        tracing::info!(%route, event = event.token(), hook, "hook called");
    }

    /// A webhook did not take what it was told, or has not let a step begin.
    pub fn hook_failed(&self, route: &RouteName, event: HookEvent, hook: &str, error: &str) {
        self.hooks.with_label_values(&[event.token(), FAILURE]).inc();
        tracing::warn!(%route, event = event.token(), hook, error, "hook failed");
        self.hook_news(route, event, hook, error);
    }

    /// A webhook was not called, for too many calls wait.
    pub fn hook_dropped(&self, route: &RouteName, event: HookEvent, hook: &str) {
        self.hooks.with_label_values(&[event.token(), DROPPED]).inc();
        let error = "it was not called: too many calls of hooks wait";
        tracing::warn!(%route, event = event.token(), hook, error, "hook failed");
        self.hook_news(route, event, hook, error);
    }

    fn hook_news(&self, route: &RouteName, event: HookEvent, hook: &str, error: &str) {
        self.tell(|| News::HookFailed {
            route: route.clone(),
            event,
            hook: hook.to_owned(),
            error: error.to_owned(),
        });
    }
}
