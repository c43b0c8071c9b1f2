//! The end of a month: events go into another partition from one moment to the next.

use std::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pulse_tests::{Process, TestEnv, eventually, libfaketime, pulse_output};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Time between the start of PostgreSQL and the end of the month on its clock.
const LEAD_SECONDS: i64 = 20;

/// Starts PostgreSQL with a clock that is shifted to the end of this month, which decides the partition. Redis does not
/// start with libfaketime.
async fn env_at_the_end_of_a_month() -> anyhow::Result<TestEnv> {
    let now = Timestamp::now();
    let today = now.to_zoned(TimeZone::UTC).date();
    let next = today.last_of_month().tomorrow()?.to_zoned(TimeZone::UTC)?.timestamp();
    let shift = format!("+{}s", next.as_second() - now.as_second() - LEAD_SECONDS);
    let library = libfaketime()?;
    let postgres = |config: pulse::datastores::PostgresConfig| {
        let shifted = config.with_variable("LD_PRELOAD", &library).with_variable("FAKETIME", &shift);
        shifted.with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    };
    let env = TestEnv::with_servers(postgres, |redis| redis).await?;
    let (code, output) = pulse_output(&env, &["migrate"]).await?;
    anyhow::ensure!(code == 0, "pulse migrate: {output}");
    Ok(env)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_posted_while_a_month_ends_are_stored_in_both_months_and_processed_once() -> anyhow::Result<()> {
    let env = env_at_the_end_of_a_month().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let client = api.client("ada");
    let count = async |filter: &str| env.number(&format!("SELECT count(*) FROM events WHERE {filter}")).await;
    let mut posted = 0;
    eventually("events are stored in both months", TIMEOUT, async || {
        try_join_all((0..10).map(|_| client.post_event("a"))).await?;
        posted += 10;
        let month = "date_trunc('month', now(), 'UTC')";
        Ok(count(&format!("created_at < {month}")).await? >= 100
            && count(&format!("created_at >= {month}")).await? >= 100)
    })
    .await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!((count("true").await?, count("NOT processed").await?), (posted, 0));
    let once = "SELECT count(*) FROM task_history WHERE attempts = 1 AND outcome = 'completed'";
    assert_eq!(env.number(once).await?, posted);
    let partitions = "SELECT count(DISTINCT tableoid) FROM events WHERE tableoid <> 'events_default'::regclass";
    assert_eq!(env.number(partitions).await?, 2);
    Ok(())
}
