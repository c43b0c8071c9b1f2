//! Runs `pulse why`, and injects the faults that more than one test needs.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use pulse_tests::{Process, TestEnv, eventually, pulse};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgTransaction};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The answer of `pulse why --json`.
pub(crate) async fn why(env: &TestEnv, id: &str) -> anyhow::Result<Value> {
    let output = pulse(env, &["why", id, "--json"]).output().await?;
    let text = String::from_utf8(output.stdout)?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer: Value = serde_json::from_str(text.trim()).with_context(|| format!("{text}{error}"))?;
    let Value::String(sentence) = &answer["explanation"]["sentence"] else { anyhow::bail!("no sentence: {answer}") };
    let advice = answer["explanation"]["advice"].as_str().unwrap_or_default();
    anyhow::ensure!(sentence.ends_with('.') && advice.ends_with('.'), "not sentences: {sentence} {advice}");
    Ok(answer)
}

/// Waits until `pulse why` names this cause as the dominant one.
pub(crate) async fn names(env: &TestEnv, id: &str, cause: &str) -> anyhow::Result<()> {
    names_with(env, id, cause, None).await
}

/// Like [`names`], with `also` among the other causes.
pub(crate) async fn names_both(env: &TestEnv, id: &str, cause: &str, also: &str) -> anyhow::Result<()> {
    names_with(env, id, cause, Some(also)).await
}

async fn names_with(env: &TestEnv, id: &str, cause: &str, also: Option<&str>) -> anyhow::Result<()> {
    let mut last = Value::Null;
    let named = eventually(&format!("the cause is {cause}, with {also:?}"), TIMEOUT, async || {
        last = why(env, id).await?;
        let explanation = &last["explanation"];
        let others = explanation["also"].as_array().context("the other causes")?;
        let has = |also| others.iter().any(|other| other["cause"] == also);
        Ok(explanation["cause"] == cause && also.is_none_or(has))
    })
    .await;
    named.with_context(|| last.to_string())
}

/// Waits until this number of tasks is leased.
pub(crate) async fn leased(env: &TestEnv, tasks: i64) -> anyhow::Result<()> {
    let leased = "SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL";
    eventually("tasks are leased", TIMEOUT, async || Ok(env.number(leased).await? == tasks)).await
}

/// Runs a statement of the test.
pub(crate) async fn execute(env: &TestEnv, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&env.db).await?;
    Ok(())
}

/// Locks the row of a task, until the transaction ends.
pub(crate) async fn lock<'a>(env: &TestEnv, id: &str) -> anyhow::Result<PgTransaction<'a>> {
    let mut transaction = env.db.begin().await?;
    let lock = format!("SELECT FROM tasks WHERE id = '{id}' FOR UPDATE");
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Posts short tasks of a user, which keep a worker with one slot reading for seconds.
pub(crate) async fn trickle(api: &Process, user: &str) -> anyhow::Result<()> {
    let client = api.client(user);
    let posted = futures_util::stream::iter(0..400).map(|_| client.post_event("sleep:50")).buffer_unordered(32);
    let posted: Vec<_> = posted.collect().await;
    posted.into_iter().collect::<anyhow::Result<Vec<_>>>().map(drop)
}

/// Waits until the worker has completed some tasks, so that it has read past older entries.
pub(crate) async fn has_completed_some(env: &TestEnv) -> anyhow::Result<()> {
    let some = "SELECT count(*) FROM task_history";
    eventually("tasks are completed", TIMEOUT, async || Ok(env.number(some).await? > 5)).await
}
