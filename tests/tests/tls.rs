//! TLS to PostgreSQL and Redis: what is encrypted, who is believed, and what is said when it does not fit.

use std::time::Duration;

use anyhow::Context;
use pulse_operator::scaling::{Key, RedisServer, SampleError, SampleTarget, Samplers};
use pulse_tests::{Process, TestEnv, TlsServers, ca_of_nobody, eventually, pulse, pulse_output};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_accepted_and_processed_over_tls_alone_and_again_after_redis_was_lost() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    servers.world.database_url = servers.database_url("localhost", "");
    servers.world.redis_url = servers.redis_url("localhost");
    let ca_file = servers.ca_file.clone();
    let cas = ["--database-ca-file", &ca_file, "--redis-ca-file", &ca_file];
    let world = &mut servers.world;
    let (code, output) = pulse_output(world, &["migrate", "--database-ca-file", &ca_file]).await?;
    assert_eq!(code, 0, "{output}");
    let api = Process::start(world, "api", &cas).await?;
    let _scheduler = Process::start(world, "scheduler", &cas).await?;
    let worker = Process::start(world, "worker", &cas).await?;
    post_and_follow(&api, "first").await?;

    let connections = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                       WHERE application_name LIKE 'pulse %' AND ssl =";
    assert!(world.number(&format!("{connections} true")).await? >= 3);
    assert_eq!(world.number(&format!("{connections} false")).await?, 0);

    world.lose_redis().await?;
    let degraded = async || Ok(worker.admin().get("/readyz").await?.text.contains("polling PostgreSQL"));
    eventually("the worker misses Redis", SOON, degraded).await?;
    world.start_redis().await?;
    let ready = async || Ok(!worker.admin().get("/readyz").await?.text.contains("polling PostgreSQL"));
    eventually("the worker has Redis again", SOON, ready).await?;
    post_and_follow(&api, "second").await
}

async fn post_and_follow(api: &Process, name: &str) -> anyhow::Result<()> {
    let client = api.client("ada");
    let accepted = client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let path = format!("/api/v1/events/{}", accepted.json["event_id"]);
    eventually("it is processed", SOON, async || Ok(client.get(&path).await?.json["processed"] == true)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_how_far_each_connection_can_be_trusted() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.world, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    assert_eq!(checked(&servers.world, "postgresql", &[]).await?, json!(["unix socket", null]));
    let ca = ["--database-ca-file", &servers.ca_file];
    servers.world.database_url = servers.database_url("localhost", "");
    let verified = checked(&servers.world, "postgresql", &ca).await?;
    assert_eq!(verified, json!(["encrypted, server verified", null]));
    for (query, ca, expected) in [
        ("?sslmode=verify-ca", &ca[..], "encrypted, CA verified, name not verified"),
        ("", &[], "encrypted, server not verified"),
    ] {
        servers.world.database_url = servers.database_url("127.0.0.1", query);
        let open = checked(&servers.world, "postgresql", ca).await?;
        assert_eq!(open[0], expected);
        assert!(open[1].as_str().is_some_and(|note| note.contains("sslmode=verify-full")), "{open}");
    }

    assert_eq!(checked(&servers.world, "redis", &[]).await?, json!(["unix socket", null]));
    servers.world.redis_url = servers.redis_url("localhost");
    let verified = checked(&servers.world, "redis", &["--redis-ca-file", &servers.ca_file]).await?;
    assert_eq!(verified, json!(["encrypted, server verified", null]));
    Ok(())
}

/// Value and note of the line about the connection to one of both; all is well, whatever they say.
async fn checked(world: &TestEnv, part: &str, more: &[&str]) -> anyhow::Result<Value> {
    let (code, output) = pulse_output(world, &[&["check", "--json"], more].concat()).await?;
    let report: Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    assert_eq!(code, 0, "{output}");
    let lines = report["checks"].as_array().into_iter().flatten();
    let line = lines.into_iter().find(|line| line["part"] == part && line["name"] == "connection");
    let line = line.with_context(|| format!("{output} tells of it"))?;
    Ok(json!([line["value"], line["note"]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_believed_is_named_and_waited_for() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let sockets = (servers.world.database_url.clone(), servers.world.redis_url.clone());
    let (code, output) = pulse_output(&servers.world, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    let other = servers.world.file("other.crt").display().to_string();
    std::fs::write(&other, ca_of_nobody()?)?;
    let ca = servers.ca_file.clone();

    for (url, more, expected) in [
        (
            servers.database_url("localhost", ""),
            vec!["--database-ca-file", &other],
            "not signed by a CA that is trusted",
        ),
        (servers.database_url("localhost", "?sslmode=verify-full"), vec![], "not signed by a CA that is trusted"),
        (servers.database_url("127.0.0.1", ""), vec!["--database-ca-file", &ca], "for another name: connect by a name"),
    ] {
        servers.world.database_url = url;
        let told = told_by(&servers.world, "scheduler", &more, "postgresql", "failed").await?;
        assert!(told.contains(expected) && !told.contains("canary"), "{told}");
        let (code, output) = pulse_output(&servers.world, &[vec!["migrate"], more].concat()).await?;
        assert!(code == 1 && output.contains(expected) && !output.contains("canary"), "{code} {output}");
    }
    servers.world.database_url = sockets.0;
    for (url, file, expected) in [
        (servers.redis_url("localhost"), &other, "not signed by a CA that is trusted"),
        (servers.redis_url("127.0.0.1"), &ca, "for another name: connect by a name"),
    ] {
        servers.world.redis_url = url;
        let told = told_by(&servers.world, "worker", &["--redis-ca-file", file], "redis", "degraded").await?;
        assert!(told.contains(expected), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_mended_is_believed_without_a_restart_of_the_role() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.world, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    servers.world.database_url = servers.database_url("localhost", "");
    servers.rename_postgres("elsewhere").await?;
    let ca = ["--database-ca-file", servers.ca_file.as_str()];
    let role = Process::start_unready(&servers.world, "scheduler", &ca).await?;
    let refuses = async || Ok(role.admin().get("/readyz").await?.text.contains("for another name"));
    eventually("it does not believe the server", SOON, refuses).await?;
    servers.rename_postgres("localhost").await?;
    eventually("it does", SOON, async || Ok(role.admin().get("/readyz").await?.status == 200)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_ca_the_roots_of_the_system_are_believed_or_those_of_ssl_cert_file() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.world, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    servers.world.redis_url = servers.redis_url("localhost");
    for query in ["?sslmode=verify-full", "?sslrootcert=system"] {
        servers.world.database_url = servers.database_url("localhost", query);
        let (code, output) = pulse_output(&servers.world, &["check"]).await?;
        assert!(code == 25 && output.matches("not signed by a CA that is trusted").count() >= 2, "{code} {output}");
        let output = pulse(&servers.world, &["check"]).env("SSL_CERT_FILE", &servers.ca_file).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.matches("connection = encrypted, server verified").count(), 2, "{text}");
    }
    servers.world.database_url = servers.database_url("localhost", &format!("?sslrootcert={}", servers.ca_file));
    let output = pulse(&servers.world, &["check"]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("postgresql  connection = encrypted, server verified"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_spoken_to_in_clear() -> anyhow::Result<()> {
    let (postgres, redis) = (pulse_tests::free_port()?, pulse_tests::free_port()?);
    let mut world = TestEnv::with_servers(
        |config| config.with_port(postgres),
        |config| config.with_setting("port", &redis.to_string()),
    )
    .await?;
    let ca = world.file("ca.crt").display().to_string();
    std::fs::write(&ca, ca_of_nobody()?)?;
    let socket = std::mem::replace(&mut world.database_url, format!("postgres://pulse@127.0.0.1:{postgres}/pulse"));
    for (query, more) in [("", vec!["--database-ca-file", &ca]), ("?sslmode=require", vec![])] {
        world.database_url = format!("postgres://pulse@127.0.0.1:{postgres}/pulse{query}");
        let told = told_by(&world, "worker", &more, "postgresql", "failed").await?;
        assert!(told.contains("it offers no TLS") && told.contains("turn ssl on"), "{told}");
    }
    world.database_url = socket;
    let (code, output) = pulse_output(&world, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    world.redis_url = format!("rediss://127.0.0.1:{redis}");
    let told = told_by(&world, "worker", &[], "redis", "degraded").await?;
    assert!(told.contains("this is not its TLS port"), "{told}");
    Ok(())
}

/// What a role that is live and stays so says about a part of it in that state.
async fn told_by(world: &TestEnv, role: &str, more: &[&str], part: &str, state: &str) -> anyhow::Result<String> {
    let mut process = Process::start_unready(world, role, more).await?;
    let told = async || -> anyhow::Result<Value> {
        let checks = process.admin().get("/readyz").await?.json;
        let checks = checks["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["name"] == part).context("it is checked")
    };
    eventually("it says what is wrong", SOON, async || Ok(told().await?["status"] == state)).await?;
    let detail = told().await?["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(process.admin().get("/livez").await?.status, 200);
    assert_eq!(process.stop().await?, 0);
    Ok(detail)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_of_no_use_ends_a_role_with_what_to_do() -> anyhow::Result<()> {
    let mut world = TestEnv::unmigrated().await?;
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = world.file(name).display().to_string();
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let (good, empty, text) = (file("good", &ca_of_nobody()?)?, file("empty", "")?, file("text", "canary")?);
    let tcp = "postgres://pulse:canary@db/pulse";
    let table = [
        (
            tcp,
            "rediss://:canary@redis",
            vec!["--database-ca-file", "/nowhere"],
            "/nowhere cannot be read: No such file",
        ),
        (tcp, "rediss://:canary@redis", vec!["--database-ca-file", &empty], "no certificate in it: it must be PEM"),
        (tcp, "rediss://:canary@redis", vec!["--redis-ca-file", &text], "no certificate in it: it must be PEM"),
        (tcp, "redis://:canary@redis", vec!["--redis-ca-file", &good], "write rediss://"),
        (tcp, "rediss://:canary@redis/#insecure", vec![], "#insecure is not supported"),
        (
            "postgres://pulse:canary@db/pulse?sslmode=disable",
            "redis://r",
            vec!["--database-ca-file", &good],
            "leave one of them out",
        ),
        ("postgres://pulse:canary@db/pulse?sslmode=verify-ca", "redis://r", vec![], "say sslmode=verify-full"),
        ("postgres://pulse:canary@db/pulse?sslmode=maybe", "redis://r", vec![], "maybe"),
    ];
    for (database, redis, more, expected) in table {
        (world.database_url, world.redis_url) = (database.to_owned(), redis.to_owned());
        let (code, output) = pulse_output(&world, &[vec!["worker"], more].concat()).await?;
        assert!(code == 1 && output.contains(expected) && !output.contains("canary"), "{code} {output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reads_a_queue_over_tls_by_the_ca_of_each_object() -> anyhow::Result<()> {
    let servers = TlsServers::start().await?;
    let mut redis = redis::Client::open(servers.world.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    for _ in 0..4 {
        let mut add = redis::cmd("XADD");
        let _: String =
            add.arg("pulse:{shop/main}:tasks").arg("*").arg("task_id").arg("x").query_async(&mut redis).await?;
    }
    let (sender, mut sampled) = mpsc::channel(64);
    let samplers = Samplers::new(Duration::from_millis(100), sender);
    let key = |uid: &str| Key { namespace: "shop".into(), name: "main".into(), uid: uid.into() };
    let target = |uid: &str, ca: Option<String>| SampleTarget {
        instance: "shop/main".into(),
        server: RedisServer { url: servers.redis_url("localhost"), ca: ca.map(String::into_bytes) },
        key: key(uid),
    };
    samplers.set_targets(vec![
        target("right", Some(servers.ca.clone())),
        target("wrong", Some(ca_of_nobody()?)),
        target("none", None),
        target("text", Some("no PEM".into())),
    ]);
    assert_eq!(samplers.servers(), 4, "another CA is another server");
    tokio::spawn(async move { while sampled.recv().await.is_some() {} });
    let undelivered = async || {
        let sample = samplers.latest(&key("right")).context("a sample")?;
        Ok(sample.depth.is_some_and(|depth| depth.undelivered() == 4))
    };
    eventually("the backlog is read", SOON, undelivered).await?;
    for uid in ["wrong", "none", "text"] {
        let failed = async || Ok(samplers.latest(&key(uid)).context("a sample")?.error == Some(SampleError::TlsFailed));
        eventually(&format!("{uid} fails"), SOON, failed).await?;
    }
    Ok(())
}
