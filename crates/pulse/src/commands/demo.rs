//! `pulse demo`: posts one event and one batch, waits until both are processed, and prints every request; or runs a story.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth_args::SigningArgs;
use crate::client::Client;
use crate::output::print_line;
use crate::story::{self, Story, StoryArgs};
use crate::token_args::TokenArgs;

#[derive(Debug, Args)]
#[command(mut_arg("jwt_secret", |arg| arg.help("Secret of the API's HS256 tokens: each sender of a story is another user")))]
pub(crate) struct DemoArgs {
    /// Address of the API
    #[arg(long, env = "PULSE_URL", default_value = "http://localhost:8000")]
    url: String,
    #[command(flatten)]
    token: TokenArgs,
    /// Story to run instead, for the console: `shop` has orders, payments and refunds, a release that fails for one
    /// currency, one noisy user, and one sender with a wrong clock. The release fails where `pulse dev` runs the workers
    #[arg(long, requires = "signing")]
    story: Option<Story>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    details: StoryArgs,
}

pub(crate) async fn run(args: DemoArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let DemoArgs { url, token, story, signing, details } = args;
    match (story, signing.secret()?) {
        (Some(Story::Shop), Some(secret)) => story::run(&url, &secret, details, shutdown).await,
        _ => show(&Client::new(&url, &token.token()?)?).await,
    }
}

/// Posts one event and one batch, and prints every request.
async fn show(client: &Client) -> anyhow::Result<()> {
    print_line("1. post one event")?;
    let event = json!({
        "event_name": "page_view", "event_type": "engagement", "source": "web", "session_id": "sess_123",
        "payload": {"page": "/dashboard", "duration": 45, "scroll_depth": 75},
        "ip_address": "192.168.1.1", "user_agent": "pulse demo",
    });
    let accepted = expect(client.post("/api/v1/events", &event).await?, 202)?;
    print_line(&format!("   202 {accepted}"))?;

    print_line("2. post a batch of two")?;
    let batch = json!({"events": [
        {"event_name": "page_view", "event_type": "engagement", "payload": {"page": "/home"}},
        {"event_name": "button_click", "event_type": "interaction", "payload": {"button_id": "btn_1"}},
    ]});
    let batch = expect(client.post("/api/v1/events/batch", &batch).await?, 202)?;
    print_line(&format!("   202 {batch}"))?;

    print_line("3. wait until both tasks are completed")?;
    for task_id in [&accepted["task_id"], &batch["task_id"]] {
        let task = wait_for_task(client, task_id.as_str().context("the response has no task_id")?).await?;
        print_line(&format!("   {} is {} after attempt {}", task["task_id"], task["state"], task["attempts"]))?;
    }

    print_line("4. read the event back")?;
    let event = expect(client.get(&format!("/api/v1/events/{}", accepted["event_id"])).await?, 200)?;
    print_line(&format!(
        "   processed {} at {}, properties {}",
        event["processed"], event["processed_at"], event["properties"]
    ))?;

    print_line("5. list the newest events")?;
    let page = expect(client.get("/api/v1/events?limit=3").await?, 200)?;
    for event in page["events"].as_array().context("the response has no events")? {
        print_line(&format!("   {} {} {}", event["id"], event["event_name"], event["created_at"]))?;
    }

    print_line("6. count the events that are not processed yet")?;
    print_line(&format!("   {}", expect(client.get("/api/v1/events/status/unprocessed").await?, 200)?))
}

/// Polls a task until it is completed, for at most 30 s.
async fn wait_for_task(client: &Client, task_id: &str) -> anyhow::Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let task = expect(client.get(&format!("/api/v1/tasks/{task_id}")).await?, 200)?;
        match task["state"].as_str() {
            Some("completed") => return Ok(task),
            Some("dead" | "cancelled" | "orphaned") => bail!("task {task_id} is {}: {}", task["state"], task["errors"]),
            _ if Instant::now() > deadline => {
                bail!("task {task_id} is still {} after 30 s: check that a worker runs", task["state"])
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The body of a response with the status `expected`; any other status is an error.
fn expect((status, body): (u16, Value), expected: u16) -> anyhow::Result<Value> {
    if status == expected { Ok(body) } else { bail!("expected status {expected}, got {status}: {body}") }
}
