//! Secrets: a change rolls exactly who uses it, and nothing else does; their values are nowhere to be read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::cluster::Fault;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, SOON};
use pulse_tests::{Client, TlsServers, ca_of_nobody, eventually};
use serde_json::json;

const REDIS: &str = "redis://:canary-redis@127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_rolls_exactly_the_roles_that_use_it() -> anyhow::Result<()> {
    let (bench, _operator) = start("rolls").await?;
    let body = async {
        let (all, api) = (vec!["main-api", "main-scheduler", "main-worker"], vec!["main-api"]);
        bench.installed_by_itself("main").await?;
        for (name, key, value, expected) in [
            ("main-auth", "secret", "canary-auth-9876543210-9876543210-9876", &api),
            ("main-redis", "url", "redis://:canary-new@127.0.0.1:1", &all),
            ("main-database", "uri", "postgres://pulse:canary-new@database/pulse", &all),
        ] {
            let before = templates(&bench).await?;
            bench.secret(name, key, value).await?;
            let rolled = async || Ok(rolled(&before, &templates(&bench).await?) == *expected);
            eventually(&format!("{name} rolls {expected:?}"), SOON, rolled).await?;
            bench.settles("main", SOON).await?;
            read_again(&bench).await?;
            assert_eq!(rolled_since(&bench, &before).await?, *expected, "{name}");
        }
        Ok(())
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_waited_for_and_a_new_one_rolls_who_connects_and_migrates_nothing() -> anyhow::Result<()> {
    let (bench, _operator) = start("ca").await?;
    let body = async {
        let all = vec!["main-api", "main-scheduler", "main-worker"];
        let cas = json!({
            "database": { "caSecretRef": { "name": "main-database-ca" } },
            "redis": { "caSecretRef": { "name": "main-redis-ca" } },
        });
        bench.create("main", cas).await?;
        bench.reaches("main", "Reconciling", "True/WaitingForReference").await?;
        assert!(bench.all::<Job>().list(&ListParams::default()).await?.items.is_empty(), "a pod of it would not start");
        let message = bench.status("main").await?.to_string();
        assert!(message.contains("Secret main-database-ca does not exist"), "{message}");
        bench.secret("main-database-ca", "ca.crt", "canary-ca-1").await?;
        bench.secret("main-redis-ca", "ca.crt", "canary-ca-2").await?;
        bench.settles("main", SOON).await?;
        let jobs = async || Ok::<_, anyhow::Error>(bench.all::<Job>().list(&ListParams::default()).await?.items.len());
        let migrations = jobs().await?;
        for name in ["main-database-ca", "main-redis-ca"] {
            let before = templates(&bench).await?;
            bench.secret(name, "ca.crt", &format!("canary-ca-3-{name}")).await?;
            let rolled = async || Ok(rolled(&before, &templates(&bench).await?) == all);
            eventually(&format!("{name} rolls all"), SOON, rolled).await?;
            bench.settles("main", SOON).await?;
        }
        let before = templates(&bench).await?;
        bench.change("main", json!({ "redis": { "caSecretRef": null } })).await?;
        let dropped = async || Ok(rolled(&before, &templates(&bench).await?) == all);
        eventually("dropping one rolls all", SOON, dropped).await?;
        bench.settles("main", SOON).await?;
        assert!(templates(&bench).await?.values().all(|template| !template.contains("redis-ca")));
        assert_eq!(jobs().await?, migrations, "the database is the same");
        Ok(())
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_read_over_tls_by_the_ca_that_the_object_names() -> anyhow::Result<()> {
    let servers = TlsServers::start().await?;
    let bench = OperatorEnv::start("tls").await?;
    bench.secrets(&servers.redis_url("localhost")).await?;
    bench.secret("main-redis-ca", "ca.crt", &servers.ca).await?;
    let _operator = bench.operator(&[]).await?;
    let body = async {
        bench.create("main", json!({ "redis": { "caSecretRef": { "name": "main-redis-ca" } } })).await?;
        bench.settles("main", SOON).await?;
        bench.reaches("main", "QueueReachable", "True").await?;
        bench.secret("main-redis-ca", "ca.crt", &ca_of_nobody()?).await?;
        bench.reaches("main", "QueueReachable", "False/TlsFailed").await?;
        bench.secret("main-redis-ca", "ca.crt", &servers.ca).await?;
        bench.reaches("main", "QueueReachable", "True").await
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_about_a_secret_rolls_anything() -> anyhow::Result<()> {
    let (bench, _operator) = start("rest").await?;
    let body = async {
        bench.installed_by_itself("main").await?;
        let before = templates(&bench).await?;
        let nothing: Vec<&str> = Vec::new();
        let secrets = bench.all::<Secret>();

        let label = json!({ "metadata": { "labels": { "a": "b" } }, "stringData": { "other": "canary-other" } });
        secrets.patch("main-auth", &PatchParams::default(), &Patch::Merge(&label)).await?;
        read_again(&bench).await?;
        assert_eq!(rolled_since(&bench, &before).await?, nothing, "a label and another key");

        for (fault, reads) in [(Fault::Answer(500), 6), (Fault::Hang, 1)] {
            let hits = bench.proxy.inject(|call| call.verb == "get" && call.name == "main-auth", fault);
            eventually("it cannot be read", SOON, async || Ok(hits.hits() >= reads)).await?;
            bench.change("main", json!({ "api": { "replicas": 1 + reads } })).await?;
            let scaled = async || Ok(bench.replicas("main-api").await? == i32::try_from(1 + reads)?);
            eventually("other changes go on", SOON, scaled).await?;
            assert_eq!(rolled_since(&bench, &before).await?, nothing, "{fault:?}");
        }
        bench.settles("main", SOON).await?;

        let secret = secrets.get("main-auth").await?;
        secrets.delete("main-auth", &DeleteParams::default()).await?;
        bench.reaches("main", "Reconciling", "True/WaitingForReference").await?;
        bench.reaches("main", "Available", "True").await?;
        read_again(&bench).await?;
        assert_eq!(rolled_since(&bench, &before).await?, nothing, "it is missing");
        let Secret { data, .. } = secret;
        let value = data.and_then(|mut data| data.remove("secret")).map(|value| value.0).unwrap_or_default();
        bench.secret("main-auth", "secret", &String::from_utf8(value)?).await?;
        bench.settles("main", SOON).await?;
        assert_eq!(rolled_since(&bench, &before).await?, nothing, "it is back");
        Ok(())
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_operator_rolls_nothing() -> anyhow::Result<()> {
    let (bench, operator) = start("restart").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    let before = templates(&bench).await?;
    assert_eq!(operator.stop().await?, 0);
    bench.proxy.clear_log();
    let _operator = bench.operator(&[]).await?;
    read_again(&bench).await?;
    read_again(&bench).await?;
    assert_eq!(templates(&bench).await?, before);
    let writes = bench.proxy.log().into_iter().filter(|logged| logged.call.writes());
    let writes: Vec<String> =
        writes.map(|logged| logged.call.resource).filter(|resource| resource != "leases").collect();
    assert!(writes.is_empty(), "{writes:?} were written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_of_a_secret_is_shown_anywhere() -> anyhow::Result<()> {
    let (bench, operator) = start("hidden").await?;
    let body = async {
        bench.installed_by_itself("main").await?;
        // What goes wrong is told too.
        bench.secret("main-redis", "url", "canary-no-url://canary-user:canary-password@").await?;
        bench.secret("main-database", "uri", "canary-no-uri").await?;
        bench.all::<Secret>().delete("main-auth", &DeleteParams::default()).await?;
        bench.reaches("main", "Reconciling", "True").await?;
        bench.reaches("main", "QueueReachable", "False").await?;
        read_again(&bench).await
    };
    bench.served(body).await?;
    let mut shown = vec![
        operator.output()?,
        Client::new(&operator.admin, "").get("/metrics").await?.text,
        serde_json::to_string(&bench.instances().list(&ListParams::default()).await?.items)?,
    ];
    macro_rules! list {
        ($($kind:ty),*) => {
            $(shown.push(serde_json::to_string(&bench.all::<$kind>().list(&ListParams::default()).await?.items)?);)*
        };
    }
    list!(Deployment, Job, Pod, Service, ServiceAccount, PodDisruptionBudget, Event);
    shown.extend(bench.proxy.log().into_iter().map(|logged| String::from_utf8_lossy(&logged.body).into_owned()));
    assert!(shown.iter().any(|text| text.contains("main-database")), "there is something to look at");
    for text in shown {
        let found = text.find("canary-").map(|at| text.split_at(at).1.chars().take(80).collect::<String>());
        assert_eq!(found, None);
    }
    Ok(())
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess)> {
    let bench = OperatorEnv::start(prefix).await?;
    bench.secrets(REDIS).await?;
    let operator = bench.operator(&[]).await?;
    Ok((bench, operator))
}

/// Waits until every Secret was read twice more: whatever follows from the first reading has begun.
async fn read_again(bench: &OperatorEnv) -> anyhow::Result<()> {
    let reads = || bench.proxy.count(|logged| logged.call.verb == "get" && logged.call.name == "main-auth");
    let before = reads();
    eventually("the Secrets are read", SOON, async || Ok(reads() >= before + 2)).await
}

/// Each Deployment's pod template, as text.
async fn templates(bench: &OperatorEnv) -> anyhow::Result<BTreeMap<String, String>> {
    let deployments = bench.all::<Deployment>().list(&ListParams::default()).await?;
    let template = |deployment: &Deployment| {
        Ok((deployment.name_any(), serde_json::to_string(&deployment.spec.as_ref().map(|spec| &spec.template))?))
    };
    deployments.iter().map(template).collect()
}

/// Whose template has changed.
fn rolled<'a>(before: &'a BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<&'a str> {
    before.iter().filter(|(name, template)| after.get(*name) != Some(template)).map(|(name, _)| name.as_str()).collect()
}

async fn rolled_since<'a>(bench: &OperatorEnv, before: &'a BTreeMap<String, String>) -> anyhow::Result<Vec<&'a str>> {
    Ok(rolled(before, &templates(bench).await?))
}
