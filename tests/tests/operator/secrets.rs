//! Secrets: a change of a value rolls exactly the roles that use it, nothing else does, and no value is exposed.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::cluster::Fault;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::{Client, TlsServers, eventually, unrelated_ca};
use serde_json::json;

const REDIS: &str = "redis://:canary-redis@127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn secret_change_rolls_only_the_roles_that_use_it() -> anyhow::Result<()> {
    let (env, _operator) = start("rolls").await?;
    let body = async {
        let (all, api) = (vec!["main-api", "main-scheduler", "main-worker"], vec!["main-api"]);
        env.create_and_wait("main").await?;
        for (name, key, value, expected) in [
            ("main-auth", "secret", "canary-auth-9876543210-9876543210-9876", &api),
            ("main-redis", "url", "redis://:canary-new@127.0.0.1:1", &all),
            ("main-database", "uri", "postgres://pulse:canary-new@database/pulse", &all),
        ] {
            let before = pod_templates(&env).await?;
            env.apply_secret(name, key, value).await?;
            let rolled = async || Ok(changed_deployments(&before, &pod_templates(&env).await?) == *expected);
            eventually(&format!("{name} rolls {expected:?}"), TIMEOUT, rolled).await?;
            env.wait_until_reconciled("main", TIMEOUT).await?;
            wait_for_reads(&env).await?;
            assert_eq!(changed_since(&env, &before).await?, *expected, "{name}");
        }
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_ca_is_awaited_and_a_new_ca_rolls_pods_without_migration() -> anyhow::Result<()> {
    let (env, _operator) = start("ca").await?;
    let body = async {
        let all = vec!["main-api", "main-scheduler", "main-worker"];
        let cas = json!({
            "database": { "caSecretRef": { "name": "main-database-ca" } },
            "redis": { "caSecretRef": { "name": "main-redis-ca" } },
        });
        env.create("main", cas).await?;
        env.wait_for_condition("main", "Reconciling", "True/WaitingForReference").await?;
        assert!(env.api::<Job>().list(&ListParams::default()).await?.items.is_empty(), "no Job before its CA exists");
        let message = env.status("main").await?.to_string();
        assert!(message.contains("Secret main-database-ca does not exist"), "{message}");
        env.apply_secret("main-database-ca", "ca.crt", "canary-ca-1").await?;
        env.apply_secret("main-redis-ca", "ca.crt", "canary-ca-2").await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        let jobs = async || Ok::<_, anyhow::Error>(env.api::<Job>().list(&ListParams::default()).await?.items.len());
        let job_count = jobs().await?;
        for name in ["main-database-ca", "main-redis-ca"] {
            let before = pod_templates(&env).await?;
            env.apply_secret(name, "ca.crt", &format!("canary-ca-3-{name}")).await?;
            let rolled = async || Ok(changed_deployments(&before, &pod_templates(&env).await?) == all);
            eventually(&format!("{name} rolls all"), TIMEOUT, rolled).await?;
            env.wait_until_reconciled("main", TIMEOUT).await?;
        }
        let before = pod_templates(&env).await?;
        env.patch_spec("main", json!({ "redis": { "caSecretRef": null } })).await?;
        let removed = async || Ok(changed_deployments(&before, &pod_templates(&env).await?) == all);
        eventually("removing a CA rolls all", TIMEOUT, removed).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        assert!(pod_templates(&env).await?.values().all(|template| !template.contains("redis-ca")));
        assert_eq!(jobs().await?, job_count, "no new migration");
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_is_read_over_tls_with_the_ca_of_the_instance() -> anyhow::Result<()> {
    let servers = TlsServers::start().await?;
    let env = OperatorEnv::start("tls").await?;
    env.create_secrets(&servers.redis_url("localhost")).await?;
    env.apply_secret("main-redis-ca", "ca.crt", &servers.ca).await?;
    let _operator = env.start_operator(&[]).await?;
    let body = async {
        env.create("main", json!({ "redis": { "caSecretRef": { "name": "main-redis-ca" } } })).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        env.wait_for_condition("main", "QueueReachable", "True").await?;
        env.apply_secret("main-redis-ca", "ca.crt", &unrelated_ca()?).await?;
        env.wait_for_condition("main", "QueueReachable", "False/TlsFailed").await?;
        env.apply_secret("main-redis-ca", "ca.crt", &servers.ca).await?;
        env.wait_for_condition("main", "QueueReachable", "True").await
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_looked_up_in_the_namespace_of_the_object_and_only_at_allowed_hosts() -> anyhow::Result<()> {
    let env = OperatorEnv::start("lookup").await?;
    env.create_secrets("redis://:canary@main-redis:6379/0").await?;
    let _operator = env.start_operator(&["--redis-allowed-host", "*.svc"]).await?;
    let body = async {
        env.create("main", json!({})).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        let name = format!("main-redis.{}.svc", env.namespace);
        for (url, reason, place) in [
            ("redis://:canary@main-redis:6379/0", "HostNotFound", name.as_str()),
            ("redis://:canary@127.0.0.1:1", "HostNotAllowed", "127.0.0.1"),
            ("unix:///var/run/redis.sock", "UrlNotSupported", "no host"),
        ] {
            env.apply_secret("main-redis", "url", url).await?;
            env.wait_for_condition("main", "QueueReachable", &format!("False/{reason}")).await?;
            let status = env.status("main").await?.to_string();
            anyhow::ensure!(status.contains(place) && !status.contains("canary"), "{status}");
        }
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unrelated_secret_changes_roll_nothing() -> anyhow::Result<()> {
    let (env, _operator) = start("rest").await?;
    let body = async {
        env.create_and_wait("main").await?;
        let before = pod_templates(&env).await?;
        let none: Vec<&str> = Vec::new();
        let secrets = env.api::<Secret>();

        let label = json!({ "metadata": { "labels": { "a": "b" } }, "stringData": { "other": "canary-other" } });
        secrets.patch("main-auth", &PatchParams::default(), &Patch::Merge(&label)).await?;
        wait_for_reads(&env).await?;
        assert_eq!(changed_since(&env, &before).await?, none, "a label and another key");

        for (fault, reads) in [(Fault::Respond(500), 6), (Fault::Hang, 1)] {
            let hits = env.proxy.inject(|call| call.verb == "get" && call.name == "main-auth", fault);
            eventually("the Secret cannot be read", TIMEOUT, async || Ok(hits.hits() >= reads)).await?;
            env.patch_spec("main", json!({ "api": { "replicas": 1 + reads } })).await?;
            let scaled = async || Ok(env.replicas("main-api").await? == i32::try_from(1 + reads)?);
            eventually("other changes are still applied", TIMEOUT, scaled).await?;
            assert_eq!(changed_since(&env, &before).await?, none, "{fault:?}");
        }
        env.wait_until_reconciled("main", TIMEOUT).await?;

        let secret = secrets.get("main-auth").await?;
        secrets.delete("main-auth", &DeleteParams::default()).await?;
        env.wait_for_condition("main", "Reconciling", "True/WaitingForReference").await?;
        env.wait_for_condition("main", "Available", "True").await?;
        wait_for_reads(&env).await?;
        assert_eq!(changed_since(&env, &before).await?, none, "the Secret is missing");
        let Secret { data, .. } = secret;
        let value = data.and_then(|mut data| data.remove("secret")).map(|value| value.0).unwrap_or_default();
        env.apply_secret("main-auth", "secret", &String::from_utf8(value)?).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        assert_eq!(changed_since(&env, &before).await?, none, "the Secret is back");
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_restart_rolls_nothing() -> anyhow::Result<()> {
    let (env, operator) = start("restart").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let before = pod_templates(&env).await?;
    assert_eq!(operator.stop().await?, 0);
    env.proxy.clear_log();
    let _operator = env.start_operator(&[]).await?;
    wait_for_reads(&env).await?;
    wait_for_reads(&env).await?;
    assert_eq!(pod_templates(&env).await?, before);
    let writes = env.proxy.log().into_iter().filter(|logged| logged.call.writes());
    let writes: Vec<String> =
        writes.map(|logged| logged.call.resource).filter(|resource| resource != "leases").collect();
    assert!(writes.is_empty(), "{writes:?} were written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_values_are_never_exposed() -> anyhow::Result<()> {
    let (env, operator) = start("hidden").await?;
    let body = async {
        env.create_and_wait("main").await?;
        // Error messages must not contain the values either.
        env.apply_secret("main-redis", "url", "canary-no-url://canary-user:canary-password@").await?;
        env.apply_secret("main-database", "uri", "canary-no-uri").await?;
        env.api::<Secret>().delete("main-auth", &DeleteParams::default()).await?;
        env.wait_for_condition("main", "Reconciling", "True").await?;
        env.wait_for_condition("main", "QueueReachable", "False").await?;
        wait_for_reads(&env).await
    };
    env.with_simulator(body).await?;
    let mut shown = vec![
        operator.output()?,
        Client::new(&operator.admin, "").get("/metrics").await?.text,
        serde_json::to_string(&env.instances().list(&ListParams::default()).await?.items)?,
    ];
    macro_rules! list {
        ($($kind:ty),*) => {
            $(shown.push(serde_json::to_string(&env.api::<$kind>().list(&ListParams::default()).await?.items)?);)*
        };
    }
    list!(Deployment, Job, Pod, Service, ServiceAccount, PodDisruptionBudget, Event);
    shown.extend(env.proxy.log().into_iter().map(|logged| String::from_utf8_lossy(&logged.body).into_owned()));
    assert!(shown.iter().any(|text| text.contains("main-database")), "the output contains the names of the Secrets");
    for text in shown {
        let found = text.find("canary-").map(|at| text.split_at(at).1.chars().take(80).collect::<String>());
        assert_eq!(found, None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_many_instances_are_read_within_a_budget() -> anyhow::Result<()> {
    const INSTANCES: usize = 20;
    let env = OperatorEnv::start("budget").await?;
    env.create_secrets(REDIS).await?;
    for number in 0..INSTANCES {
        env.create(&format!("o{number}"), json!({})).await?;
    }
    let mut rates = Vec::new();
    let mut running = None;
    // Every 3 s without an effective budget, and every 30 s with it.
    for budget in ["10000", "2"] {
        if let Some(operator) = running.take() {
            OperatorProcess::stop(operator).await?;
        }
        let operator = env.start_operator(&["--secret-reads-per-second", budget]).await?;
        env.with_simulator(async {
            for number in 0..INSTANCES {
                env.wait_until_reconciled(&format!("o{number}"), TIMEOUT).await?;
            }
            let all = async || Ok(operator.reconcile_count().await >= 3 * INSTANCES);
            eventually("every instance is reconciled three times", TIMEOUT, all).await
        })
        .await?;
        let reads = || env.proxy.count(|logged| logged.call.verb == "get" && logged.call.resource == "secrets");
        let (before, reconciled, started) = (reads(), operator.reconcile_count().await, Instant::now());
        let resampled = async || Ok(operator.reconcile_count().await >= reconciled + 20 * INSTANCES);
        eventually("every instance is reconciled 20 times more", TIMEOUT * 2, resampled).await?;
        let seconds = started.elapsed().as_secs_f64();
        rates.push((reads() - before) as f64 / seconds);
        println!("{budget} per second allowed: {:.1} reads per second in {seconds:.1} s", rates[rates.len() - 1]);
        running = Some(operator);
    }
    assert!(rates[0] > 10.0 && rates[1] < 6.0, "{rates:?}");

    env.apply_secret("main-auth", "secret", "canary-auth-9876543210-9876543210-9876").await?;
    let before = env.api::<Deployment>().get("o7-api").await?.metadata.generation;
    let refresh = json!({ "metadata": { "annotations": { "pulseboard.dev/refresh": "1" } } });
    env.instances().patch("o7", &PatchParams::default(), &Patch::Merge(&refresh)).await?;
    let rolls = async || Ok(env.api::<Deployment>().get("o7-api").await?.metadata.generation > before);
    eventually("a changed annotation makes it read at once", std::time::Duration::from_secs(5), rolls).await
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess)> {
    let env = OperatorEnv::start(prefix).await?;
    env.create_secrets(REDIS).await?;
    let operator = env.start_operator(&[]).await?;
    Ok((env, operator))
}

/// Waits until the Secrets have been read twice more: the reconcile with the first read has then finished.
async fn wait_for_reads(env: &OperatorEnv) -> anyhow::Result<()> {
    let reads = || env.proxy.count(|logged| logged.call.verb == "get" && logged.call.name == "main-auth");
    let before = reads();
    eventually("the Secrets are read twice", TIMEOUT, async || Ok(reads() >= before + 2)).await
}

/// The pod template of each Deployment, as JSON.
async fn pod_templates(env: &OperatorEnv) -> anyhow::Result<BTreeMap<String, String>> {
    let deployments = env.api::<Deployment>().list(&ListParams::default()).await?;
    let template = |deployment: &Deployment| {
        Ok((deployment.name_any(), serde_json::to_string(&deployment.spec.as_ref().map(|spec| &spec.template))?))
    };
    deployments.iter().map(template).collect()
}

/// The Deployments whose pod template has changed.
fn changed_deployments<'a>(before: &'a BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<&'a str> {
    before.iter().filter(|(name, template)| after.get(*name) != Some(template)).map(|(name, _)| name.as_str()).collect()
}

async fn changed_since<'a>(env: &OperatorEnv, before: &'a BTreeMap<String, String>) -> anyhow::Result<Vec<&'a str>> {
    Ok(changed_deployments(before, &pod_templates(env).await?))
}
