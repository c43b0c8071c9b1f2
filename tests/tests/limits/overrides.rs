//! Limits of one user, and the share of each API process.

use std::time::Duration;

use pulse_tests::{Client, Process, TestEnv, eventually, pulse_output};
use serde_json::{Value, json};

use super::{EVENTS, event, header};

/// An API process reads changes every 5 s.
const APPLIED: Duration = Duration::from_secs(10);

async fn policy_becomes(client: &Client, policy: &str) -> anyhow::Result<()> {
    let what = format!("the policy is {policy:?}");
    eventually(&what, APPLIED, async || Ok(header(&client.get(EVENTS).await?, "ratelimit-policy") == policy)).await
}

async fn limits(env: &TestEnv, args: &[&str]) -> anyhow::Result<Value> {
    let (code, output) = pulse_output(env, &[&["user", "limit", "ada", "--json"], args].concat()).await?;
    anyhow::ensure!(code == 0, "pulse user limit: {output}");
    Ok(serde_json::from_str(output.lines().next().unwrap_or_default())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_one_user_come_before_those_of_the_instance() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--user-events-per-second", "100"]).await?;
    let (ada, bob) = (api.client("ada"), api.client("bob"));
    for client in [&ada, &bob] {
        assert_eq!(header(&client.post(EVENTS, &event()).await?, "ratelimit-policy"), r#""events";q=100;w=1"#);
    }
    assert_eq!(limits(&env, &["--events-per-second", "7", "--max-lists", "1"]).await?["events_per_second"], 7);
    let set = limits(&env, &["--requests-per-second", "50"]).await?;
    assert_eq!(set, json!({ "requests_per_second": 50, "events_per_second": 7, "max_lists": 1 }));
    assert_eq!(limits(&env, &[]).await?, set, "without a limit, it only prints");
    policy_becomes(&ada, r#""requests";q=50;w=1, "events";q=7;w=1"#).await?;
    assert_eq!(header(&bob.get(EVENTS).await?, "ratelimit-policy"), r#""events";q=100;w=1"#);

    // A process that does not know the user yet reads its limits with the user.
    let second = Process::start(&env, "api", &[]).await?;
    let answer = second.client("ada").get(EVENTS).await?;
    assert!(header(&answer, "ratelimit-policy").contains("events"), "{:?}", answer.headers);

    limits(&env, &["--requests-per-second", "0", "--events-per-second", "0"]).await?;
    policy_becomes(&ada, "").await?;
    assert_eq!(limits(&env, &["--clear"]).await?, json!({}));
    let (code, output) = pulse_output(&env, &["user", "limit", "unknown", "--max-lists", "1"]).await?;
    assert!(code == 1 && output.contains("there is no user `unknown`"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_processes_share_the_rates() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let args = ["--user-events-per-second", "10"];
    let api = Process::start(&env, "api", &args).await?;
    let client = api.client("ada");
    policy_becomes(&client, r#""events";q=10;w=1"#).await?;
    let second = Process::start(&env, "api", &args).await?;
    policy_becomes(&client, r#""events";q=5;w=1"#).await?;
    policy_becomes(&second.client("ada"), r#""events";q=5;w=1"#).await?;
    // A process counts for 15 s after its end.
    second.kill().await?;
    sqlx::query("UPDATE api_processes SET seen_at = now() - interval '15 s'").execute(&env.db).await?;
    policy_becomes(&client, r#""events";q=10;w=1"#).await
}
