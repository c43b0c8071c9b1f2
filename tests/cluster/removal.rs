//! Removed, in either order, and installed again: nothing hangs, and what people own stays.

use crate::site::{E2eEnv, Outside};

/// The object first, then the operator first; each time it comes back to its events.
pub(crate) async fn and_return(site: &E2eEnv, api: &Outside) -> anyhow::Result<()> {
    let events = site.database.number("SELECT count(*) FROM events").await?;
    let values = site.types("helm get values main -o yaml").await?;
    let operators = site.types("helm -n pulse-system get values pulse-operator -o yaml").await?;

    site.types("helm uninstall main --wait --timeout 2m").await?;
    site.gone().await?;
    site.types("helm -n pulse-system uninstall pulse-operator --wait --timeout 2m").await?;
    install(site, &operators, &values).await?;
    assert_eq!(site.database.number("SELECT count(*) FROM events").await?, events, "the data is there");
    site.first_event(api).await?;

    site.types("helm -n pulse-system uninstall pulse-operator --wait --timeout 2m").await?;
    site.first_event(api).await?;
    site.types("helm uninstall main --wait --timeout 2m").await?;
    site.gone().await?;
    let kept = site.types("kubectl get crd pulseingests.pulseboard.dev -o name").await?;
    assert!(kept.contains("pulseingests"), "{kept}");
    Ok(())
}

/// The CRD stayed, so its owner has to be named.
async fn install(site: &E2eEnv, operators: &str, values: &str) -> anyhow::Result<()> {
    let (operators, values) = (site.file("operator.yaml", operators)?, site.file("values.yaml", values)?);
    site.types(&format!(
        "helm -n pulse-system install pulse-operator charts/pulse-operator -f {} --take-ownership --wait --timeout 2m
         helm install main charts/pulse-ingest -f {} --wait --timeout 3m",
        operators.display(),
        values.display()
    ))
    .await
    .map(drop)
}
