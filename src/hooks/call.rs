//! One call of a webhook.

use std::sync::Arc;

use url::Url;

use crate::model::Hook;
use crate::outbound;

use super::Note;

/// Sends the note; a failure when the answer is not 2xx, in words that go after the hook's name.
pub(super) async fn post(hook: &Hook, note: &Arc<Note>) -> Result<(), String> {
    let (called, note) = (hook.clone(), Arc::clone(note));
    let answer = tokio::task::spawn_blocking(move || send(&called, &note)).await;
    answer.unwrap_or_else(|_| Err("was not called: the call broke off".to_owned()))
}

fn send(hook: &Hook, note: &Note) -> Result<(), String> {
    // The rest of the URL may be a secret.
    let hidden = |error: &dyn std::fmt::Display| error.to_string().replace(&hook.url, hook.shown());
    let url: Url =
        hook.url.parse().map_err(|error| format!("has no URL that can be used: {}", hidden(&error)))?;
    let body = serde_json::to_vec(note).map_err(|error| format!("was not called: {error}"))?;
    let agent = outbound::agent(&url, hook.timeout)?;
    let request = agent.post(&hook.url).header("Content-Type", "application/json");
    let answer = request.send(&body[..]).map_err(|error| format!("cannot be reached: {}", hidden(&error)))?;
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(format!("answered {}, and redirects are not followed", status.as_u16()))
    } else {
        Err(format!("answered {}", status.as_u16()))
    }
}
