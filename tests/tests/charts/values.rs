//! Values that the charts refuse, with an error that names the value.

use crate::helm::{Helm, INGEST, OPERATOR};

#[tokio::test]
async fn misspelt_value_is_refused_by_name() -> anyhow::Result<()> {
    let wrong = [
        (OPERATOR, "replicaCountt=3", "replicaCountt"),
        (OPERATOR, "image.tagg=1", "tagg"),
        (OPERATOR, "watch.scope=cluser", "scope"),
        (INGEST, "databas.x=1", "databas"),
        (INGEST, "database.urlSecretRef.nam=x", "nam"),
        (INGEST, "workers.replcas=3", "replcas"),
        (INGEST, "devDatastores.enable=true", "enable"),
    ];
    for (chart, value, name) in wrong {
        for helm in Helm::BOTH {
            let refusal = helm.refusal(chart, &["--set", value]).await?;
            assert!(refusal.contains("schema") && refusal.contains(name), "{helm:?} {chart} {value}: {refusal}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn dev_datastores_require_a_password() -> anyhow::Result<()> {
    for helm in Helm::BOTH {
        let refusal = helm.refusal(INGEST, &["--set", "devDatastores.enabled=true"]).await?;
        assert!(refusal.contains("devDatastores.password"), "{helm:?}: {refusal}");
        let half = "devDatastores.enabled=true,devDatastores.password=mine";
        let refusal = helm.refusal(INGEST, &["--set", half]).await?;
        assert!(refusal.contains("devDatastores.jwtSecret"), "{helm:?}: {refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn route_without_a_gateway_is_refused() -> anyhow::Result<()> {
    for helm in Helm::BOTH {
        let refusal = helm.refusal(INGEST, &["--set", "httpRoute.enabled=true"]).await?;
        assert!(refusal.contains("httpRoute.parentRefs"), "{helm:?}: {refusal}");
    }
    Ok(())
}

#[tokio::test]
async fn monitors_need_the_crd_of_the_prometheus_operator() -> anyhow::Result<()> {
    for (chart, value, kind) in [
        (OPERATOR, "serviceMonitor", "ServiceMonitor"),
        (OPERATOR, "prometheusRule", "PrometheusRule"),
        (INGEST, "podMonitor", "PodMonitor"),
    ] {
        let enabled = format!("{value}.enabled=true");
        let (always, fail) = (format!("{value}.renderMode=alwaysRender"), format!("{value}.renderMode=failIfMissing"));
        let known = format!("monitoring.coreos.com/v1/{kind}");
        for helm in Helm::BOTH {
            let has_monitor = async |args: &[&str]| {
                let rendered = helm.template(chart, &[&["--set", &enabled], args].concat()).await?;
                anyhow::Ok(rendered.contains(&format!("kind: {kind}\n")))
            };
            assert!(!has_monitor(&[]).await?, "{helm:?} {chart}");
            assert!(has_monitor(&["--api-versions", &known]).await?, "{helm:?} {chart}");
            assert!(has_monitor(&["--set", &always]).await?, "{helm:?} {chart}");
            let refusal = helm.refusal(chart, &["--set", &enabled, "--set", &fail]).await?;
            assert!(refusal.contains(&format!("{value}.renderMode")), "{helm:?}: {refusal}");
        }
    }
    Ok(())
}
