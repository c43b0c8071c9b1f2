//! Installation without Helm: README's commands, an own processor, and the quickstart manifest, which includes the
//! datastores.

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::E2eEnv;
use crate::own_processor;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_manifests_install_and_process_events() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let env = E2eEnv::start("bills", Helm::Four).await?;
    let urls = env.urls(2, false);
    env.run_readme_section("### By kubectl", &[("postgres://…", &urls.database), ("redis://…", &urls.redis)]).await?;
    env.post_event(&env.expose_api().await?).await?;
    own_processor::deploy(&env).await?;
    env.shell("kubectl delete pulseingest main --timeout=1m").await?;
    env.wait_until_deleted().await?;

    let trial = E2eEnv::start("trial", Helm::Four).await?;
    // The images of the datastores are built from the machine's packages, in place of the official ones.
    trial
        .shell(
            "sed -E 's#docker.io/library/(postgres|redis):.*#localhost/\\1:e2e#' manifests/quickstart/quickstart.yaml |
                 kubectl apply --server-side -f -
             kubectl wait --for=condition=Ready --timeout=3m pulseingest/main",
        )
        .await?;
    trial.post_event(&trial.expose_api().await?).await?;
    trial.shell("kubectl delete namespace trial --timeout=2m").await?;
    env.tear_down().await
}
