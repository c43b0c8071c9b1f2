//! Networks that are silent for some seconds: connections stay open, and nothing arrives.

use std::time::{Duration, Instant};

use pulse_tests::{Link, Network, Process, TestEnv, eventually, free_port, pulse_output};

use crate::{Loaded, TIMEOUT};

const CUT: Duration = Duration::from_secs(5);

/// Servers with ports, and a link to each for one role.
struct Ports {
    env: TestEnv,
    postgresql: u16,
    redis: u16,
}

impl Ports {
    async fn start() -> anyhow::Result<Self> {
        let (postgresql, redis) = (free_port()?, free_port()?);
        let env = TestEnv::with_servers(
            |config| config.with_port(postgresql),
            |config| config.with_setting("port", &redis.to_string()).with_setting("bind", "127.0.0.1"),
        );
        let env = env.await?;
        let (code, output) = pulse_output(&env, &["migrate"]).await?;
        anyhow::ensure!(code == 0, "pulse migrate: {output}");
        Ok(Self { env, postgresql, redis })
    }

    fn database_url(link: &Link) -> String {
        format!("postgres://pulse@127.0.0.1:{}/pulse", link.port)
    }

    fn redis_url(link: &Link) -> String {
        format!("redis://127.0.0.1:{}", link.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_networks_between_roles_and_servers_lose_nothing() -> anyhow::Result<()> {
    let ports = Ports::start().await?;
    let env = &ports.env;
    let links = [Link::to(ports.postgresql).await?, Link::to(ports.postgresql).await?, Link::to(ports.redis).await?];
    let [of_api, of_worker, of_redis] = &links;
    let api = Process::start(env, "api", &["--database-url", &Ports::database_url(of_api)]).await?;
    let flags = ["--database-url", &Ports::database_url(of_worker), "--redis-url", &Ports::redis_url(of_redis)];
    let worker = Process::start(env, "worker", &flags).await?;
    let _scheduler = Process::start(env, "scheduler", &[]).await?;
    let loaded = Loaded::start(env, &api, 200, 30).await?;
    for (name, link) in
        [("API and PostgreSQL", of_api), ("worker and PostgreSQL", of_worker), ("worker and Redis", of_redis)]
    {
        link.set(Network::Silent);
        tokio::time::sleep(CUT).await;
        link.set(Network::Up);
        let healed = Instant::now();
        let event = serde_json::json!({ "event_name": "page_view", "event_type": "t" });
        eventually("an event is processed", TIMEOUT, async || {
            let answer = api.client("ada").post("/api/v1/events", &event).await?;
            if answer.status != 202 {
                return Ok(false);
            }
            let path = format!("/api/v1/tasks/{}", answer.json["task_id"].as_str().unwrap_or_default());
            let deadline = Instant::now() + Duration::from_secs(1);
            while Instant::now() < deadline {
                if api.client("ada").get(&path).await?.json["state"] == "completed" {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await?;
        println!("{name}: normal {:.1?} after the network", healed.elapsed());
        assert!(healed.elapsed() < Duration::from_secs(15), "{name}");
    }
    loaded.finish(env).await?;
    assert_eq!(worker.admin().get("/readyz").await?.status, 200);
    Ok(())
}
