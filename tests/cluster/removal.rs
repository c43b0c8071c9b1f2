//! Removal in either order, and reinstallation: the removal does not hang, and the data and the CRD stay.

use crate::e2e_env::{E2eEnv, ExternalApi};

/// Removes the instance and then the operator, installs both again, and removes them in the other order.
pub(crate) async fn remove_and_reinstall(env: &E2eEnv, api: &ExternalApi) -> anyhow::Result<()> {
    let events = env.database.number("SELECT count(*) FROM events").await?;
    let values = env.shell("helm get values main -o yaml").await?;
    let operator_values = env.shell("helm -n pulse-system get values pulse-operator -o yaml").await?;

    env.shell("helm uninstall main --wait --timeout 2m").await?;
    env.wait_until_deleted().await?;
    env.shell("helm -n pulse-system uninstall pulse-operator --wait --timeout 2m").await?;
    install(env, &operator_values, &values).await?;
    assert_eq!(env.database.number("SELECT count(*) FROM events").await?, events, "the events are still stored");
    env.post_event(api).await?;

    env.shell("helm -n pulse-system uninstall pulse-operator --wait --timeout 2m").await?;
    env.post_event(api).await?;
    env.shell("helm uninstall main --wait --timeout 2m").await?;
    env.wait_until_deleted().await?;
    let kept = env.shell("kubectl get crd pulseingests.pulseboard.dev -o name").await?;
    assert!(kept.contains("pulseingests"), "{kept}");
    Ok(())
}

/// The CRD stayed after `helm uninstall`, so the new release has to take ownership of it.
async fn install(env: &E2eEnv, operator_values: &str, values: &str) -> anyhow::Result<()> {
    let operator_values = env.file("operator.yaml", operator_values)?;
    let values = env.file("values.yaml", values)?;
    env.shell(&format!(
        "helm -n pulse-system install pulse-operator charts/pulse-operator -f {} --take-ownership --wait --timeout 2m
         helm install main charts/pulse-ingest -f {} --wait --timeout 3m",
        operator_values.display(),
        values.display()
    ))
    .await
    .map(drop)
}
