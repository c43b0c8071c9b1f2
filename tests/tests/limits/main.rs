//! Limits of users: what one user takes beyond them is answered 429, and other users do not notice.

mod admin_port;
mod in_flight;
mod new_users;
mod overrides;
mod rates;

use pulse_tests::{Client, Response};
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";

fn event() -> Value {
    json!({ "event_name": "a", "event_type": "t" })
}

fn batch(events: usize) -> Value {
    json!({ "events": vec![event(); events] })
}

/// The text of a header; empty if it is absent.
fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Posts `count` events at the same time and returns the responses.
async fn post_at_once(client: &Client, count: usize) -> anyhow::Result<Vec<Response>> {
    let event = event();
    futures_util::future::try_join_all((0..count).map(|_| client.post(EVENTS, &event))).await
}
