//! One patch as a request, and what its answer means.
//!
//! Not by `Api::patch_status`: of an answer that is no success it keeps the body only, and the time to wait after a 429
//! is in a header.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch as Body, PatchParams};
use kube::core::{Request, Status};
use kube::{Client, Resource};
use patina_controller::convert::LeanService;
use patina_controller_core::writes::{End, Patch};
use patina_runtime::client::brief;

use super::render::body;
use crate::watch::observed;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const FIELD_MANAGER: &str = "patina-controller";

/// Sends it. Dropping the future gives it up, which does not keep the server from writing what has arrived.
pub(super) async fn send(client: &Client, patch: &Patch) -> End {
    match tokio::time::timeout(REQUEST_TIMEOUT, exchange(client, patch)).await {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::Unreachable(brief(&error)),
        Err(_) => End::Failed(format!("no answer within {REQUEST_TIMEOUT:?}")),
    }
}

async fn exchange(client: &Client, patch: &Patch) -> kube::Result<End> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let request = Request::new(Service::url_path(&(), Some(&patch.id.namespace)));
    let request =
        match request.patch_subresource("status", &patch.id.name, &params, &Body::Merge(body(patch, &now))) {
            Ok(request) => request,
            // No such name exists; nothing was sent.
            Err(error) => return Ok(End::Refused(error.to_string())),
        };
    let answer = client.send(request.map(Into::into)).await?;
    let (head, body) = answer.into_parts();
    let retry_after = head.headers.get("retry-after").and_then(|value| seconds(value.to_str().ok()?));
    let bytes = body.collect_bytes().await?;
    if head.status.is_success() {
        return Ok(match serde_json::from_slice::<LeanService>(&bytes) {
            Ok(LeanService(service)) => End::Done(Box::new(observed(&service))),
            Err(error) => End::Failed(format!("the answer is no Service: {error}")),
        });
    }
    Ok(meaning(head.status.as_u16(), retry_after, &bytes))
}

fn meaning(code: u16, retry_after: Option<Duration>, body: &[u8]) -> End {
    let status: Option<Status> = serde_json::from_slice(body).ok();
    let in_body = status.as_ref().and_then(|status| status.details.as_ref());
    let in_body = in_body.map(|details| u64::from(details.retry_after_seconds)).filter(|n| *n > 0);
    let retry_after = retry_after.or(in_body.map(Duration::from_secs));
    let words = match status {
        Some(status) if !status.message.is_empty() => status.message,
        _ => String::from_utf8_lossy(body.get(..200).unwrap_or(body)).trim().to_owned(),
    };
    let words = format!("{words} ({code})");
    match code {
        409 => End::Conflict,
        404 => End::Gone,
        429 => End::Busy(retry_after),
        503 if retry_after.is_some() => End::Busy(retry_after),
        // 401: a token that is just being exchanged.
        401 | 408 | 500.. => End::Failed(words),
        _ => End::Refused(words),
    }
}

/// In seconds; the other form, a date, is not used by API servers.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, header: Option<&str>, body: &str) -> String {
        format!("{:?}", meaning(code, header.and_then(seconds), body.as_bytes()))
    }

    #[test]
    fn a_busy_server_says_for_how_long() {
        // The API server's own limit answers in plain text, with a header.
        assert_eq!(of(429, Some("1"), "Too many requests, please try again later."), "Busy(Some(1s))");
        let body = r#"{"kind":"Status","status":"Failure","code":429,"details":{"retryAfterSeconds":7}}"#;
        assert_eq!(of(429, None, body), "Busy(Some(7s))");
        assert_eq!(of(429, Some("soon"), ""), "Busy(None)");
        assert_eq!(of(503, Some("2"), ""), "Busy(Some(2s))");
    }

    #[test]
    fn every_no_has_its_meaning_and_its_words() {
        let forbidden = r#"{"kind":"Status","message":"services is forbidden","code":403}"#;
        assert_eq!(of(403, None, forbidden), r#"Refused("services is forbidden (403)")"#);
        assert_eq!(of(409, None, "{}"), "Conflict");
        assert_eq!(of(404, None, "{}"), "Gone");
        assert_eq!(of(422, None, "no"), r#"Refused("no (422)")"#);
        assert_eq!(of(503, None, "down"), r#"Failed("down (503)")"#);
        assert_eq!(of(500, Some("1"), "webhook"), r#"Failed("webhook (500)")"#);
    }
}
