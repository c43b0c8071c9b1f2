//! The objects that the charts render.

use std::collections::BTreeSet;

use anyhow::Context;
use pulse_tests::repository;
use serde_json::{Value, json};

use crate::helm::{Helm, INGEST, OPERATOR};
use crate::objects::{Case, objects, of_kind};

#[tokio::test]
async fn charts_pass_the_strict_linter_of_both_helms() -> anyhow::Result<()> {
    for case in Case::all()? {
        let chart = format!("charts/{}", case.chart);
        for helm in Helm::BOTH {
            helm.run(&[&["lint", "--strict", "--kube-version", "1.33.0", &chart], &case.flags()?[..]].concat()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn charts_render_the_same_objects_with_both_helms() -> anyhow::Result<()> {
    for case in Case::all()? {
        let [three, four, again] =
            [case.text(Helm::Three).await?, case.text(Helm::Four).await?, case.text(Helm::Four).await?];
        assert!(!objects(&four)?.is_empty(), "{case:?}");
        assert_eq!(objects(&three)?, objects(&four)?, "{case:?}");
        assert_eq!(four, again, "{case:?}");
    }
    Ok(())
}

/// The security contexts of the pods that a chart renders.
async fn security_contexts(chart: &str, flags: &[&str]) -> anyhow::Result<Vec<Value>> {
    let all = objects(&Helm::Four.template(chart, flags).await?)?;
    let pods = all.iter().filter_map(|object| object.pointer("/spec/template/spec/securityContext"));
    Ok(pods.cloned().collect())
}

#[tokio::test]
async fn pods_name_a_user_only_if_asked_to() -> anyhow::Result<()> {
    let restricted = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    assert_eq!(json!(security_contexts(OPERATOR, &[]).await?), json!([restricted]));
    let mut asked = restricted.clone();
    asked["runAsUser"] = json!(1000);
    assert_eq!(security_contexts(OPERATOR, &["--set", "podSecurityContext.runAsUser=1000"]).await?, [asked]);

    let datastores =
        "devDatastores.enabled=true,devDatastores.password=p,devDatastores.jwtSecret=012345678901234567890123456789012";
    let user = |user: u32| {
        let mut context = restricted.clone();
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            context[id] = json!(user);
        }
        context
    };
    assert_eq!(security_contexts(INGEST, &["--set", datastores]).await?, [user(999), user(999)]);
    let none = format!("{datastores},devDatastores.postgres.runAsUser=null,devDatastores.redis.runAsUser=null");
    assert_eq!(security_contexts(INGEST, &["--set", &none]).await?, [restricted.clone(), restricted]);
    Ok(())
}

/// Collects the `image` fields of a value, at any depth.
fn collect_images(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("image").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| collect_images(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_images(inner, found)),
        _ => {}
    }
}

#[tokio::test]
async fn registry_mirror_setting_covers_every_image() -> anyhow::Result<()> {
    let mirror = ["--set", "global.imageRegistry=mirror.example"];
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("mirror.example/pulse:{version}");
    let operator_objects = objects(&Helm::Four.template(OPERATOR, &mirror).await?)?;
    let mut found = BTreeSet::new();
    operator_objects.iter().for_each(|object| collect_images(object, &mut found));
    assert_eq!(found, BTreeSet::from([expected]));

    let dev_datastores = [
        "--set",
        "devDatastores.enabled=true,devDatastores.password=p,devDatastores.jwtSecret=012345678901234567890123456789012",
    ];
    let instance_objects = objects(&Helm::Four.template(INGEST, &[mirror, dev_datastores].concat()).await?)?;
    let instance = of_kind(&instance_objects, "PulseIngest").next().context("there is no PulseIngest")?;
    assert_eq!(instance["spec"]["image"]["repository"], "mirror.example/pulse");
    assert_eq!(instance["spec"]["image"]["tag"], version);
    let mut found = BTreeSet::new();
    instance_objects.iter().for_each(|object| collect_images(object, &mut found));
    assert!(!found.is_empty() && found.iter().all(|image| image.starts_with("mirror.example/")), "{found:?}");

    let bare = objects(&Helm::Four.template(INGEST, &mirror).await?)?;
    assert_eq!(bare.iter().map(|object| &object["kind"]).collect::<Vec<_>>(), ["PulseIngest"]);
    Ok(())
}

/// The rules of the operator's roles of a kind, without the aggregated roles for users.
fn rules(objects: &[Value], kind: &str) -> Vec<Value> {
    let roles = of_kind(objects, kind).filter(|role| role["metadata"]["name"] == "main-pulse-operator");
    roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()).collect()
}

#[tokio::test]
async fn chart_roles_match_the_permissions_of_the_operator() -> anyhow::Result<()> {
    let (watched, own) = (pulse_operator::rbac::watched(), pulse_operator::rbac::own());
    let cluster_wide = objects(&Helm::Four.template(OPERATOR, &["--set", "watch.scope=cluster"]).await?)?;
    assert_eq!(json!(rules(&cluster_wide, "ClusterRole")), json!(watched));
    assert_eq!(json!(rules(&cluster_wide, "Role")), json!(own));

    let namespaced = objects(&Helm::Four.template(OPERATOR, &[]).await?)?;
    let cluster_objects: Vec<_> =
        namespaced.iter().filter(|object| object["kind"].to_string().contains("Cluster")).collect();
    assert!(cluster_objects.is_empty(), "{cluster_objects:?}");
    let text = |rules: Vec<Value>| rules.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    let expected = json!([watched.clone(), own.clone()].concat());
    assert_eq!(text(rules(&namespaced, "Role")), text(expected.as_array().cloned().unwrap_or_default()));

    let several = objects(&Helm::Four.template(OPERATOR, &["--set", "watch.namespaces={a,b}"]).await?)?;
    assert!(several.iter().all(|object| !object["kind"].to_string().contains("ClusterRole")));
    let mut by_namespace: Vec<_> =
        of_kind(&several, "Role").map(|role| (role["metadata"]["namespace"].clone(), &role["rules"])).collect();
    by_namespace.sort_by_key(|(namespace, _)| namespace.to_string());
    assert_eq!(
        by_namespace,
        [(json!("a"), &json!(watched)), (json!("b"), &json!(watched)), (Value::Null, &json!(own))]
    );
    let subjects: Vec<_> =
        of_kind(&several, "RoleBinding").map(|binding| binding["subjects"][0]["name"].clone()).collect();
    assert_eq!(subjects, [json!("main-pulse-operator"), json!("main-pulse-operator"), json!("main-pulse-operator")]);

    let none = objects(&Helm::Four.template(OPERATOR, &["--set", "rbac.create=false"]).await?)?;
    assert!(none.iter().all(|object| object["apiVersion"] != "rbac.authorization.k8s.io/v1"));
    Ok(())
}

#[tokio::test]
async fn rendered_objects_name_no_namespace() -> anyhow::Result<()> {
    for case in Case::all()? {
        for object in case.objects().await? {
            // The roles of the watched namespaces are the only objects outside the release's namespace.
            if !matches!(object["kind"].as_str(), Some("Role" | "RoleBinding")) {
                assert_eq!(object["metadata"]["namespace"], Value::Null, "{case:?}: {}", object["kind"]);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn parent_chart_toggles_both_charts_and_passes_its_globals() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let (charts, version) = (repository().join("charts"), env!("CARGO_PKG_VERSION"));
    let dependency = |name: &str| {
        let from = format!("file://{}", charts.join(name).display());
        json!({ "name": name, "version": version, "repository": from, "condition": format!("{name}.enabled") })
    };
    let chart = json!({
        "apiVersion": "v2", "name": "platform", "version": "1.0.0",
        "dependencies": [dependency(OPERATOR), dependency(INGEST)],
    });
    // Globals of other charts are ignored.
    let values = json!({
        "global": {
            "imageRegistry": "mirror.example", "imagePullSecrets": [{ "name": "mirror" }], "other": { "team": "x" },
        },
        OPERATOR: { "enabled": true, "replicaCount": 1 },
        INGEST: { "enabled": true, "nameOverride": "orders" },
    });
    std::fs::write(parent.path().join("Chart.yaml"), chart.to_string())?;
    std::fs::write(parent.path().join("values.yaml"), values.to_string())?;
    let folder = parent.path().to_str().context("the path is not UTF-8")?;
    for helm in Helm::BOTH {
        helm.run(&["dependency", "update", folder]).await?;
        let template = ["template", "main", folder, "--kube-version", "1.33.0"];
        let both = objects(&helm.run(&template).await?)?;
        let instance = of_kind(&both, "PulseIngest").next().context("there is no PulseIngest")?;
        assert_eq!(instance["metadata"]["name"], "orders");
        assert_eq!(instance["spec"]["image"]["repository"], "mirror.example/pulse");
        assert_eq!(instance["spec"]["image"]["pullSecrets"], json!([{ "name": "mirror" }]));
        let pods = &of_kind(&both, "Deployment").next().context("there is no Deployment")?["spec"]["template"]["spec"];
        assert_eq!(pods["imagePullSecrets"], json!([{ "name": "mirror" }]));
        for (off, kind) in [(OPERATOR, "Deployment"), (INGEST, "PulseIngest")] {
            let flag = format!("{off}.enabled=false");
            let one = objects(&helm.run(&[&template[..], &["--set", &flag]].concat()).await?)?;
            assert!(of_kind(&one, kind).next().is_none() && !one.is_empty(), "{helm:?} without {off}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn two_instances_in_one_parent_chart_have_separate_datastores() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let (from, version) = (repository().join("charts").join(INGEST), env!("CARGO_PKG_VERSION"));
    let chart_url = format!("file://{}", from.display());
    let dependency =
        |alias: &str| json!({ "name": INGEST, "alias": alias, "version": version, "repository": chart_url });
    let chart = json!({
        "apiVersion": "v2", "name": "platform", "version": "1.0.0",
        "dependencies": [dependency("orders"), dependency("clicks")],
    });
    let values = |name: &str| {
        let secret = "not-a-secret-but-as-long-as-one-has-to-be";
        json!({
            "nameOverride": name, "devDatastores": { "enabled": true, "password": "any", "jwtSecret": secret },
        })
    };
    let values = json!({ "orders": values("orders"), "clicks": values("clicks") });
    std::fs::write(parent.path().join("Chart.yaml"), chart.to_string())?;
    std::fs::write(parent.path().join("values.yaml"), values.to_string())?;
    let folder = parent.path().to_str().context("the path is not UTF-8")?;
    for helm in Helm::BOTH {
        helm.run(&["dependency", "update", folder]).await?;
        let all = objects(&helm.run(&["template", "main", folder, "--kube-version", "1.33.0"]).await?)?;
        let selectors = of_kind(&all, "Service").map(|service| service["spec"]["selector"].to_string());
        let selectors: BTreeSet<_> = selectors.collect();
        assert_eq!(selectors.len(), 4, "{helm:?}: two PostgreSQL and two Redis: {selectors:?}");
        let pods = of_kind(&all, "StatefulSet").map(|set| set["spec"]["template"]["metadata"]["labels"].to_string());
        assert_eq!(pods.collect::<BTreeSet<_>>(), selectors, "{helm:?}");
    }
    Ok(())
}

/// Collects the values of all labels and all namespaces, at any depth.
fn collect_names<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match (key.as_str(), inner) {
                    ("labels" | "matchLabels", Value::Object(labels)) => found.extend(labels.values()),
                    ("namespace", _) => found.push(inner),
                    _ => collect_names(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_names(inner, found)),
        _ => {}
    }
}

#[tokio::test]
async fn numeric_release_namespace_and_secret_names_stay_strings() -> anyhow::Result<()> {
    let secret = ["--set-string", "imagePullSecrets[0].name=17"];
    for (chart, more) in [(OPERATOR, &secret[..]), (INGEST, &["--set", "nameOverride=main"])] {
        let folder = format!("charts/{chart}");
        let template = ["template", "2026", &folder, "--namespace", "42", "--kube-version", "1.33.0"];
        let all = objects(&Helm::Four.run(&[&template[..], more].concat()).await?)?;
        let mut found = Vec::new();
        all.iter()
            .filter(|object| object["kind"] != "CustomResourceDefinition")
            .for_each(|it| collect_names(it, &mut found));
        assert!(found.contains(&&json!("2026")), "{chart}");
        assert!(found.iter().all(|name| name.is_string()), "{chart}: {found:?}");
        for container in of_kind(&all, "Deployment").map(|it| &it["spec"]["template"]["spec"]["containers"][0]) {
            let env = container["env"].as_array().context("the container has no env")?;
            assert!(env.contains(&json!({ "name": "PULSE_PULL_SECRETS", "value": "17" })), "{env:?}");
        }
    }
    Ok(())
}
