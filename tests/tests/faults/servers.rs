//! A PostgreSQL without room for connections.

use pulse_tests::{Process, TestEnv, eventually};
use sqlx::{Connection, PgConnection};

use crate::{Loaded, TIMEOUT};

#[tokio::test(flavor = "multi_thread")]
async fn connections_used_up_by_others_are_answered_503_until_they_are_free() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let loaded = Loaded::start(&env, &api, 200, 20).await?;
    // Those of the roles end, and other clients are faster.
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pulse %'";
    let mut others = Vec::new();
    let event = serde_json::json!({ "event_name": "page_view", "event_type": "t" });
    eventually("a post is refused", TIMEOUT, async || {
        while let Ok(connection) = PgConnection::connect(&env.database_url).await {
            others.push(connection);
        }
        env.number(end).await?;
        let answer = api.client("ada").post("/api/v1/events", &event).await?;
        let has_time = answer.headers.contains_key("retry-after");
        anyhow::ensure!(answer.status == 202 || (answer.status == 503 && has_time), "{}", answer.text);
        Ok(answer.status == 503)
    })
    .await?;
    println!("{} connections of others", others.len());
    assert!(others.len() > 100, "{}", others.len());
    drop(others);
    let accepts = async || Ok(api.client("ada").post("/api/v1/events", &event).await?.status == 202);
    eventually("events are accepted", TIMEOUT, accepts).await?;
    loaded.finish(&env).await.map(drop)
}
