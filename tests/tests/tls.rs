//! TLS to PostgreSQL and Redis: encryption, trusted certificates, and error messages.

use std::time::Duration;

use anyhow::Context;
use pulse_operator::scaling::{AllowedHosts, Key, RedisServer, SampleTarget, Samplers};
use pulse_reconcile::scaling::SampleError;
use pulse_tests::{Process, TestEnv, TlsServers, eventually, pulse, pulse_output, unrelated_ca};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn tls_only_event_is_processed_before_and_after_a_loss_of_redis() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    servers.env.database_url = servers.database_url("localhost", "");
    servers.env.redis_url = servers.redis_url("localhost");
    let ca_file = servers.ca_file.clone();
    let cas = ["--database-ca-file", &ca_file, "--redis-ca-file", &ca_file];
    let env = &mut servers.env;
    let (code, output) = pulse_output(env, &["migrate", "--database-ca-file", &ca_file]).await?;
    assert_eq!(code, 0, "{output}");
    let api = Process::start(env, "api", &cas).await?;
    let _scheduler = Process::start(env, "scheduler", &cas).await?;
    let worker = Process::start(env, "worker", &cas).await?;
    post_and_wait(&api, "first").await?;

    let connections = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                       WHERE application_name LIKE 'pulse %' AND ssl =";
    assert!(env.number(&format!("{connections} true")).await? >= 3);
    assert_eq!(env.number(&format!("{connections} false")).await?, 0);

    env.kill_and_wipe_redis().await?;
    let degraded = async || Ok(worker.admin().get("/readyz").await?.text.contains("polling PostgreSQL"));
    eventually("the worker polls PostgreSQL", TIMEOUT, degraded).await?;
    env.start_redis().await?;
    let ready = async || Ok(!worker.admin().get("/readyz").await?.text.contains("polling PostgreSQL"));
    eventually("the worker uses Redis again", TIMEOUT, ready).await?;
    post_and_wait(&api, "second").await
}

async fn post_and_wait(api: &Process, name: &str) -> anyhow::Result<()> {
    let client = api.client("ada");
    let accepted = client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let path = format!("/api/v1/events/{}", accepted.json["event_id"]);
    eventually("the event is processed", TIMEOUT, async || Ok(client.get(&path).await?.json["processed"] == true)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_the_tls_verification_of_each_connection() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    assert_eq!(check_connection(&servers.env, "postgresql", &[]).await?, json!(["unix socket", null]));
    let ca = ["--database-ca-file", &servers.ca_file];
    servers.env.database_url = servers.database_url("localhost", "");
    let verified = check_connection(&servers.env, "postgresql", &ca).await?;
    assert_eq!(verified, json!(["encrypted, server verified", null]));
    for (query, ca, expected) in [
        ("?sslmode=verify-ca", &ca[..], "encrypted, CA verified, name not verified"),
        ("", &[], "encrypted, server not verified"),
    ] {
        servers.env.database_url = servers.database_url("127.0.0.1", query);
        let open = check_connection(&servers.env, "postgresql", ca).await?;
        assert_eq!(open[0], expected);
        assert!(open[1].as_str().is_some_and(|note| note.contains("sslmode=verify-full")), "{open}");
    }

    assert_eq!(check_connection(&servers.env, "redis", &[]).await?, json!(["unix socket", null]));
    servers.env.redis_url = servers.redis_url("localhost");
    let verified = check_connection(&servers.env, "redis", &["--redis-ca-file", &servers.ca_file]).await?;
    assert_eq!(verified, json!(["encrypted, server verified", null]));
    Ok(())
}

/// Value and note of the `connection` line of `pulse check` for `part`. The command must succeed.
async fn check_connection(env: &TestEnv, part: &str, more: &[&str]) -> anyhow::Result<Value> {
    let (code, output) = pulse_output(env, &[&["check", "--json"], more].concat()).await?;
    let report: Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    assert_eq!(code, 0, "{output}");
    let lines = report["checks"].as_array().into_iter().flatten();
    let line = lines.into_iter().find(|line| line["part"] == part && line["name"] == "connection");
    let line = line.with_context(|| format!("no connection line in {output}"))?;
    Ok(json!([line["value"], line["note"]]))
}

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_server_is_reported_and_waited_for() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let sockets = (servers.env.database_url.clone(), servers.env.redis_url.clone());
    let (code, output) = pulse_output(&servers.env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    let other = servers.env.file("other.crt").display().to_string();
    std::fs::write(&other, unrelated_ca()?)?;
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
        servers.env.database_url = url;
        let detail = failed_check(&servers.env, "scheduler", &more, "postgresql", "failed").await?;
        assert!(detail.contains(expected) && !detail.contains("canary"), "{detail}");
        let (code, output) = pulse_output(&servers.env, &[vec!["migrate"], more].concat()).await?;
        assert!(code == 1 && output.contains(expected) && !output.contains("canary"), "{code} {output}");
    }
    servers.env.database_url = sockets.0;
    for (url, file, expected) in [
        (servers.redis_url("localhost"), &other, "not signed by a CA that is trusted"),
        (servers.redis_url("127.0.0.1"), &ca, "for another name: connect by a name"),
    ] {
        servers.env.redis_url = url;
        let detail = failed_check(&servers.env, "worker", &["--redis-ca-file", file], "redis", "degraded").await?;
        assert!(detail.contains(expected), "{detail}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificate_is_trusted_without_a_restart_of_the_role() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    servers.env.database_url = servers.database_url("localhost", "");
    servers.replace_postgres_certificate("elsewhere").await?;
    let ca = ["--database-ca-file", servers.ca_file.as_str()];
    let role = Process::start_unready(&servers.env, "scheduler", &ca).await?;
    let refuses = async || Ok(role.admin().get("/readyz").await?.text.contains("for another name"));
    eventually("the role refuses the certificate", TIMEOUT, refuses).await?;
    servers.replace_postgres_certificate("localhost").await?;
    eventually("the role trusts the new certificate", TIMEOUT, async || {
        Ok(role.admin().get("/readyz").await?.status == 200)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_without_ca_file_trusts_system_roots_or_ssl_cert_file() -> anyhow::Result<()> {
    let mut servers = TlsServers::start().await?;
    let (code, output) = pulse_output(&servers.env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    servers.env.redis_url = servers.redis_url("localhost");
    for query in ["?sslmode=verify-full", "?sslrootcert=system"] {
        servers.env.database_url = servers.database_url("localhost", query);
        let (code, output) = pulse_output(&servers.env, &["check"]).await?;
        assert!(code == 25 && output.matches("not signed by a CA that is trusted").count() >= 2, "{code} {output}");
        let output = pulse(&servers.env, &["check"]).env("SSL_CERT_FILE", &servers.ca_file).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.matches("connection = encrypted, server verified").count(), 2, "{text}");
    }
    servers.env.database_url = servers.database_url("localhost", &format!("?sslrootcert={}", servers.ca_file));
    let output = pulse(&servers.env, &["check"]).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("postgresql  connection = encrypted, server verified"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_not_downgraded_to_plaintext() -> anyhow::Result<()> {
    let (postgres, redis) = (pulse_tests::free_port()?, pulse_tests::free_port()?);
    let mut env = TestEnv::with_servers(
        |config| config.with_port(postgres),
        |config| config.with_setting("port", &redis.to_string()),
    )
    .await?;
    let ca = env.file("ca.crt").display().to_string();
    std::fs::write(&ca, unrelated_ca()?)?;
    let socket = std::mem::replace(&mut env.database_url, format!("postgres://pulse@127.0.0.1:{postgres}/pulse"));
    for (query, more) in [("", vec!["--database-ca-file", &ca]), ("?sslmode=require", vec![])] {
        env.database_url = format!("postgres://pulse@127.0.0.1:{postgres}/pulse{query}");
        let detail = failed_check(&env, "worker", &more, "postgresql", "failed").await?;
        assert!(detail.contains("does not support TLS") && detail.contains("set ssl = on"), "{detail}");
    }
    env.database_url = socket;
    let (code, output) = pulse_output(&env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    env.redis_url = format!("rediss://127.0.0.1:{redis}");
    let detail = failed_check(&env, "worker", &[], "redis", "degraded").await?;
    assert!(detail.contains("this is not its TLS port"), "{detail}");
    Ok(())
}

/// Waits until `/readyz` of a role reports `state` for `part` and returns the detail. The role must stay live.
async fn failed_check(env: &TestEnv, role: &str, more: &[&str], part: &str, state: &str) -> anyhow::Result<String> {
    let mut process = Process::start_unready(env, role, more).await?;
    let check = async || -> anyhow::Result<Value> {
        let checks = process.admin().get("/readyz").await?.json;
        let checks = checks["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["name"] == part).context("readyz has the check")
    };
    eventually("the check reports its state", TIMEOUT, async || Ok(check().await?["status"] == state)).await?;
    let detail = check().await?["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(process.admin().get("/livez").await?.status, 200);
    assert_eq!(process.stop().await?, 0);
    Ok(detail)
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_tls_settings_end_a_role_with_a_remedy() -> anyhow::Result<()> {
    let mut env = TestEnv::unmigrated().await?;
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = env.file(name).display().to_string();
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let (good, empty, text) = (file("good", &unrelated_ca()?)?, file("empty", "")?, file("text", "canary")?);
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
        (env.database_url, env.redis_url) = (database.to_owned(), redis.to_owned());
        let (code, output) = pulse_output(&env, &[vec!["worker"], more].concat()).await?;
        assert!(code == 1 && output.contains(expected) && !output.contains("canary"), "{code} {output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_samples_redis_over_tls_with_ca_and_certificate_of_each_instance() -> anyhow::Result<()> {
    let servers = TlsServers::with_client_certificates().await?;
    let (certificate, private_key) = servers.client_files()?;
    let certificate = [std::fs::read(certificate)?, std::fs::read(private_key)?];
    let mut redis = redis::Client::open(servers.env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    for _ in 0..4 {
        let mut add = redis::cmd("XADD");
        let _: String =
            add.arg("pulse:{shop/main}:tasks").arg("*").arg("task_id").arg("x").query_async(&mut redis).await?;
    }
    let (sender, mut sampled) = mpsc::channel(64);
    let samplers = Samplers::new(Duration::from_millis(100), AllowedHosts::default(), sender);
    let key = |uid: &str| Key { namespace: "shop".into(), name: "main".into(), uid: uid.into() };
    let target = |uid: &str, ca: Option<String>| SampleTarget {
        instance: "shop/main".into(),
        server: RedisServer::new(
            &servers.redis_url("localhost"),
            ca.map(String::into_bytes),
            Some(certificate.clone()),
            "shop/main",
        ),
        key: key(uid),
    };
    let mut anonymous = target("anonymous", Some(servers.ca.clone()));
    anonymous.server.certificate = None;
    let mut swapped = target("swapped", Some(servers.ca.clone()));
    swapped.server.certificate.iter_mut().for_each(|pair| pair.reverse());
    samplers.set_targets(vec![
        target("right", Some(servers.ca.clone())),
        anonymous,
        swapped,
        target("wrong", Some(unrelated_ca()?)),
        target("none", None),
        target("text", Some("no PEM".into())),
    ]);
    assert_eq!(samplers.servers(), 6, "each CA, certificate and address needs a separate connection");
    tokio::spawn(async move { while sampled.recv().await.is_some() {} });
    let undelivered = async || {
        let sample = samplers.latest(&key("right")).context("a sample")?;
        Ok(sample.queue.depth.is_some_and(|depth| depth.undelivered == 4))
    };
    eventually("the backlog is sampled", TIMEOUT, undelivered).await?;
    for uid in ["wrong", "none", "text", "swapped"] {
        let failed = async || Ok(samplers.latest(&key(uid)).context("a sample")?.error == Some(SampleError::TlsFailed));
        eventually(&format!("{uid} fails"), TIMEOUT, failed).await?;
    }
    // With TLS 1.3, the server refuses the client after the handshake, so the error is that of a read.
    let refused = async || Ok(samplers.latest(&key("anonymous")).context("a sample")?.error.is_some());
    eventually("a client without a certificate is refused", TIMEOUT, refused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_open_servers_that_ask_for_them_and_are_read_again() -> anyhow::Result<()> {
    let mut servers = TlsServers::with_client_certificates().await?;
    let (code, output) = pulse_output(&servers.env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    servers.env.database_url = servers.database_url("localhost", "");
    servers.env.redis_url = servers.redis_url("localhost");
    let (certificate, key) = servers.client_files()?;
    let ca = servers.ca_file.clone();
    let cas = ["--database-ca-file", &ca, "--redis-ca-file", &ca];
    let (code, output) = pulse_output(&servers.env, &[&["check"], &cas[..]].concat()).await?;
    assert!(code == 25 && output.contains("FAIL  postgresql") && output.contains("FAIL  redis"), "{code} {output}");
    let identity = ["--database-cert-file", &certificate, "--database-key-file", &key];
    let identity = [&identity[..], &["--redis-cert-file", &certificate, "--redis-key-file", &key]].concat();
    let all = [&cas[..], &identity, &["--require-tls"]].concat();
    let (code, output) = pulse_output(&servers.env, &[&["check"], &all[..]].concat()).await?;
    assert_eq!(code, 0, "{output}");
    let api = Process::start(&servers.env, "api", &all).await?;
    let _scheduler = Process::start(&servers.env, "scheduler", &all).await?;
    let _worker = Process::start(&servers.env, "worker", &all).await?;
    post_and_wait(&api, "first").await?;

    // Connections that are opened later show the renewed certificate.
    servers.client_files()?;
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'pulse %'";
    assert!(servers.env.number(ended).await? > 0);
    let again = async || Ok(post_and_wait(&api, "second").await.is_ok());
    eventually("an event is processed with the new certificate", TIMEOUT, again).await
}

#[tokio::test(flavor = "multi_thread")]
async fn require_tls_refuses_connections_that_are_not_verified() -> anyhow::Result<()> {
    let mut env = TestEnv::unmigrated().await?;
    let (socket, redis_socket) = (env.database_url.clone(), env.redis_url.clone());
    for (database, redis, more, refused) in [
        ("postgres://a:secret@db.example/pulse", "", "", "PostgreSQL (not encrypted)"),
        ("postgres://a:secret@db.example/pulse?sslmode=require", "", "", "PostgreSQL (encrypted, server not verified)"),
        ("", "redis://:secret@redis.example", "", "Redis (not encrypted)"),
        ("", "", "http://collector.example:4318", "the OTLP collector (not encrypted)"),
    ] {
        env.database_url = if database.is_empty() { socket.clone() } else { database.to_owned() };
        env.redis_url = if redis.is_empty() { redis_socket.clone() } else { redis.to_owned() };
        let otlp = ["--otlp-endpoint", more];
        let args = [&["worker", "--require-tls"][..], if more.is_empty() { &[] } else { &otlp }].concat();
        let (code, output) = pulse_output(&env, &args).await?;
        assert!(code == 1 && output.contains("--require-tls refuses the connection to"), "{code} {output}");
        assert!(output.contains(refused) && !output.contains("secret"), "{output}");
    }
    env.database_url = socket;
    env.redis_url = redis_socket;
    let (code, output) = pulse_output(&env, &["migrate", "--require-tls"]).await?;
    assert_eq!(code, 0, "a unix socket needs no TLS: {output}");
    Ok(())
}
