//! Two operators never reconcile one object, and one operator may watch several namespaces.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use pulse_tests::cluster::Proxy;
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use pulse_tests::{Client, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn second_operator_reports_the_owner_until_the_object_is_handed_over() -> anyhow::Result<()> {
    let env = OperatorEnv::start("owners").await?;
    let _first = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let (one, two) = (format!("{}/pulse-operator", env.namespace), format!("{}/second", env.namespace));
    assert_eq!(env.status("main").await?["operator"], one);

    let proxy = Proxy::start(env.plane.admin()).await?;
    let _second = env.start_operator_via(proxy.access(), &["--lease-name", "second"]).await?;
    env.wait_for_events("main", &["NotReconciled"]).await?;
    env.patch_spec("main", json!({ "api": { "replicas": 3 } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    let written = |proxy: &Proxy| {
        let log = proxy.log().into_iter().filter(|logged| logged.call.writes());
        let ignored = ["leases", "events", "secrets"];
        log.filter(|logged| !ignored.contains(&logged.call.resource.as_str())).count()
    };
    assert_eq!(written(&proxy), 0, "the second operator writes nothing");

    let hand_over = json!({ "metadata": { "annotations": { "pulseboard.dev/operator": two } } });
    env.instances().patch("main", &PatchParams::default(), &Patch::Merge(&hand_over)).await?;
    let taken = async || Ok(env.status("main").await?["operator"] == two);
    eventually("the second operator has taken over", TIMEOUT, taken).await?;
    env.proxy.clear_log();
    env.patch_spec("main", json!({ "api": { "replicas": 4 } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    assert_eq!(env.replicas("main-api").await?, 4);
    assert_eq!(written(&env.proxy), 0, "the first operator writes nothing any more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_serves_several_namespaces_without_a_cluster_role() -> anyhow::Result<()> {
    let (home, one, other) =
        (OperatorEnv::start("home").await?, OperatorEnv::start("one").await?, OperatorEnv::start("other").await?);
    let account = home.plane.service_account(&home.namespace, "operator").await?;
    let bind = async |env: &OperatorEnv, rules| -> anyhow::Result<()> {
        let role: Role = serde_json::from_value(json!({ "metadata": { "name": "operator" }, "rules": rules }))?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": { "name": "operator" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator" },
            "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": home.namespace }],
        }))?;
        env.api::<Role>().create(&PostParams::default(), &role).await?;
        env.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;
        Ok(())
    };
    let watched = json!(pulse_operator::rbac::watched());
    bind(&one, watched.clone()).await?;
    bind(&other, watched.clone()).await?;
    let mut all = watched;
    all.as_array_mut().into_iter().for_each(|rules| {
        rules.extend(json!(pulse_operator::rbac::own()).as_array().cloned().unwrap_or_default());
    });
    bind(&home, all).await?;
    // The harness adds the namespace of `home`.
    let watch = ["--watch-namespace", &one.namespace, "--watch-namespace", &other.namespace];
    let operator = home.start_operator_via(&account, &watch).await?;
    for env in [&one, &other] {
        env.create_secrets("redis://127.0.0.1:1").await?;
    }
    tokio::try_join!(
        one.with_simulator(one.create_and_wait("main")),
        other.with_simulator(other.create_and_wait("main"))
    )?;
    assert!(!operator.output()?.contains("forbidden"), "{}", operator.output()?);
    assert_eq!(Client::new(&operator.admin, "").get("/readyz").await?.status, 200);
    Ok(())
}
