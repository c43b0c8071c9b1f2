//! Without Helm: README's commands, and then all of it, datastores included, from one file.

use crate::cluster::{ALONE, Helm};
use crate::site::E2eEnv;

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_enough() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let site = E2eEnv::start("bills", Helm::Four).await?;
    let urls = site.urls(2, false);
    site.follows_readme("### By kubectl", &[("postgres://…", &urls.database), ("redis://…", &urls.redis)]).await?;
    site.first_event(&site.open().await?).await?;
    site.types("kubectl delete pulseingest main --timeout=1m").await?;
    site.gone().await?;

    let trial = E2eEnv::start("trial", Helm::Four).await?;
    // The official images stand for what is built from the machine's packages.
    trial
        .types(
            "sed -E 's#docker.io/library/(postgres|redis):.*#localhost/\\1:e2e#' manifests/quickstart/quickstart.yaml |
                 kubectl apply --server-side -f -
             kubectl wait --for=condition=Ready --timeout=3m pulseingest/main",
        )
        .await?;
    trial.first_event(&trial.open().await?).await?;
    trial.types("kubectl delete namespace trial --timeout=2m").await?;
    site.end().await
}
