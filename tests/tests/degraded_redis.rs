//! A Redis that can be reached and does not do its work: `/readyz` and `pulse check` say what is wrong.

use std::time::Duration;

use anyhow::Context;
use pulse_queue::{Hosts, SnapshotReader};
use pulse_tests::{Process, TestEnv, eventually, free_port, pulse_output, repository};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a command as an administrator.
async fn redis<T: redis::FromRedisValue>(env: &TestEnv, command: &str) -> anyhow::Result<T> {
    let mut words = command.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap_or_default());
    words.for_each(|word| {
        command.arg(word);
    });
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    Ok(command.query_async(&mut connection).await?)
}

/// URL of Redis for a user that has these rules.
async fn url_of_user(env: &TestEnv, rules: &str) -> anyhow::Result<String> {
    let _: String = redis(env, &format!("ACL SETUSER tenant on >secret resetkeys {rules}")).await?;
    Ok(format!("{}?user=tenant&pass=secret", env.redis_url))
}

/// State and detail of the check of Redis in `/readyz`.
async fn state(role: &Process) -> anyhow::Result<(String, String)> {
    let ready = role.admin().get("/readyz").await?;
    anyhow::ensure!(ready.status == 200, "{}", ready.text);
    let checks = ready.json["checks"].as_array().cloned().unwrap_or_default();
    let redis = checks.iter().find(|check| check["name"] == "redis").context("there is a check of Redis")?;
    let text = |name: &str| redis[name].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("detail")))
}

/// Waits until `/readyz` of a role is degraded with `reason`.
async fn wait_until_degraded(role: &Process, reason: &str) -> anyhow::Result<()> {
    let is_degraded = async || {
        let (status, detail) = state(role).await?;
        anyhow::ensure!(status == "degraded" && detail.contains(reason), "{status}: {detail}");
        Ok(true)
    };
    eventually(reason, TIMEOUT, is_degraded).await
}

async fn wait_until_ok(role: &Process) -> anyhow::Result<()> {
    let is_ok = async || {
        let (status, detail) = state(role).await?;
        anyhow::ensure!((status.as_str(), detail.as_str()) == ("ok", ""), "{status}: {detail}");
        Ok(true)
    };
    eventually("Redis is ok", TIMEOUT, is_ok).await
}

/// Asserts that `pulse check` fails and says `reason`.
async fn assert_check_fails(env: &TestEnv, redis_url: &str, reason: &str) -> anyhow::Result<()> {
    let (code, output) = pulse_output(env, &["check", "--redis-url", redis_url]).await?;
    assert!(code == 25 && output.contains(reason), "{code}: {output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn full_redis_is_reported_until_it_accepts_tasks_again() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    let client = api.client("ada");
    client.post_event("a").await?;
    wait_until_ok(&api).await?;
    let _: String = redis(&env, "CONFIG SET maxmemory 1kb").await?;
    wait_until_degraded(&api, "of 1.00K: Redis is full: raise maxmemory").await?;
    client.post_event("a").await?;
    wait_until_degraded(&api, "enqueue script: Redis is full").await?;
    wait_until_degraded(&scheduler, "HSET: Redis is full").await?;
    assert_check_fails(&env, &env.redis_url, "Redis is full").await?;
    let _: String = redis(&env, "CONFIG SET maxmemory 0").await?;
    // For half a second after a refusal, the API enqueues nothing.
    let is_ok = async || {
        client.post_event("a").await?;
        Ok(state(&api).await?.0 == "ok")
    };
    eventually("the API enqueues again", TIMEOUT, is_ok).await?;
    wait_until_ok(&scheduler).await
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_is_reported_and_is_not_called_unavailable() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    wait_until_ok(&worker).await?;
    let _: String = redis(&env, "REPLICAOF 127.0.0.1 1").await?;
    wait_until_degraded(&worker, "XREADGROUP: Redis is a read-only replica: point the Redis URL at the primary")
        .await?;
    wait_until_degraded(&worker, "role is slave").await?;
    assert!(!state(&worker).await?.1.contains("unavailable"));
    assert_check_fails(&env, &env.redis_url, "read-only replica").await?;
    let _: String = redis(&env, "REPLICAOF NO ONE").await?;
    wait_until_ok(&worker).await
}

#[tokio::test(flavor = "multi_thread")]
async fn user_without_info_is_ready_and_unknown_settings_are_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let url = url_of_user(&env, "~pulse:* +@all -info").await?;
    let api = Process::start(&env, "api", &["--redis-url", &url]).await?;
    api.client("ada").post_event("a").await?;
    let (status, detail) = state(&api).await?;
    assert!(status == "ok" && detail.contains("maxmemory-policy unknown: allow INFO"), "{status}: {detail}");
    let (code, output) = pulse_output(&env, &["check", "--redis-url", &url]).await?;
    assert!(code == 0 && output.contains("maxmemory-policy = unknown"), "{code}: {output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn user_for_other_keys_is_reported_by_each_role() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let url = url_of_user(&env, "~other:* +@all").await?;
    let api = Process::start(&env, "api", &["--redis-url", &url]).await?;
    api.client("ada").post_event("a").await?;
    wait_until_degraded(&api, "enqueue script: the Redis user may not do this").await?;
    let worker = Process::start(&env, "worker", &["--redis-url", &url]).await?;
    wait_until_degraded(&worker, "the ACL in docs/how-to/redis.md").await?;
    let scheduler = Process::start(&env, "scheduler", &["--redis-url", &url]).await?;
    wait_until_degraded(&scheduler, "the Redis user may not do this").await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_check_fails(&env, &url, "the Redis user may not do this").await
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_permissions_suffice_for_all_roles_and_commands() -> anyhow::Result<()> {
    let manual = std::fs::read_to_string(repository().join("docs/how-to/redis.md"))?;
    let line = manual.lines().find_map(|line| line.trim().strip_prefix("ACL SETUSER pulse on >PASSWORD "));
    let rules = line.context("docs/how-to/redis.md has the ACL")?.replace("{shop/main}", "{dev}");
    let env = TestEnv::start().await?;
    let url = url_of_user(&env, &rules).await?;
    let user = ["--redis-url", url.as_str()];
    let api = Process::start(&env, "api", &user).await?;
    let worker = Process::start(&env, "worker", &user).await?;
    let scheduler = Process::start(&env, "scheduler", &user).await?;
    for name in ["a", "fail", "sleep:100"] {
        api.client("ada").post_event(name).await?;
    }
    env.wait_until_settled(TIMEOUT).await?;
    let (code, output) = pulse_output(&env, &["check", "--redis-url", &url]).await?;
    assert_eq!(code, 0, "{output}");
    let snapshots = SnapshotReader::new(&url, None, None, Hosts::default(), "dev")?.read(&["dev".into()]).await?;
    assert!(snapshots[0].depth.is_ok() && snapshots[0].gauges.is_ok(), "{snapshots:?}");
    for role in [&api, &worker, &scheduler] {
        wait_until_ok(role).await?;
    }
    let (code, output) = pulse_output(&env, &["queue", "purge", "--redis-url", &url]).await?;
    assert_eq!(code, 0, "{output}");
    // Optional commands of the client library are refused too, and do no harm.
    let refused: Vec<redis::Value> = redis(&env, "ACL LOG").await?;
    let refused: Vec<String> = refused.iter().map(|entry| format!("{entry:?}")).collect();
    let needed: Vec<_> = refused.iter().filter(|entry| !entry.contains("client|setinfo")).collect();
    assert!(needed.is_empty(), "{needed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_database_number_or_instance_than_the_scheduler_is_reported() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let url = format!("{}?db=1", env.redis_url);
    let api = Process::start(&env, "api", &["--redis-url", &url]).await?;
    wait_until_degraded(&api, "the scheduler uses another Redis, database number or instance").await?;
    assert_check_fails(&env, &url, "the scheduler uses another Redis").await?;
    let worker = Process::start(&env, "worker", &["--instance", "other"]).await?;
    wait_until_degraded(&worker, "the scheduler uses another Redis, database number or instance").await
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_without_slots_is_reported() -> anyhow::Result<()> {
    let (port, cluster_port) = (free_port()?.to_string(), free_port()?.to_string());
    let servers = TestEnv::with_servers(
        |postgres| postgres,
        |redis| {
            let redis = redis.with_setting("port", &port).with_setting("cluster-port", &cluster_port);
            redis.with_setting("cluster-enabled", "yes")
        },
    );
    let env = servers.await?;
    assert_eq!(pulse_output(&env, &["migrate"]).await?.0, 0);
    let worker = Process::start(&env, "worker", &[]).await?;
    wait_until_degraded(&worker, "the Redis Cluster has no primary for the keys").await?;
    assert_check_fails(&env, &env.redis_url, "wait for the failover, or start the missing nodes").await
}
