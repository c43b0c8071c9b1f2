//! Helm installation through its whole life: install, use, upgrade, faults, rollback, removal and reinstallation.

use std::time::Instant;

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::E2eEnv;
use crate::{faults, next_version, removal, upgrade};

#[tokio::test(flavor = "multi_thread")]
async fn helm_install_survives_upgrades_faults_rollback_and_removal() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let begin = Instant::now();
    let log = |what: &str| println!("{:6.1} s  {what}", begin.elapsed().as_secs_f64());
    let env = E2eEnv::start("events", Helm::Four).await?;
    log("a cluster with PostgreSQL and Redis");
    let next = tokio::spawn(next_version::build_next());
    let urls = env.urls(0, false);
    env.run_readme_section("### By Helm", &[("postgres://…", &urls.database), ("redis://…", &urls.redis)]).await?;
    log("README's commands were run, and the object is Ready");
    let api = env.expose_api().await?;
    env.post_event(&api).await?;
    log("an event from outside the cluster was processed");
    // No migration waits for an approval, so this command must fail.
    let replacements = [("/usr/local/bin", env.programs()), ("kubectl pulse approve", "! kubectl pulse approve")];
    println!("{}", env.run_readme_section("### kubectl pulse", &replacements).await?);

    env.load_image(next.await??).await?;
    let broken = tokio::spawn(next_version::build_broken());
    upgrade::upgrade_under_load(&env, &api).await?;
    log("upgraded under load");
    faults::scale_and_kill_pods_under_load(&env, &api).await?;
    log("scaled for a burst, and lost a pod of every kind");
    env.load_image(broken.await??).await?;
    upgrade::roll_back_failed_migration(&env, &api).await?;
    log("reported a failed migration, and was rolled back");
    upgrade::upgrade_and_roll_back_operator(&env).await?;
    log("the operator was upgraded and rolled back");
    removal::remove_and_reinstall(&env, &api).await?;
    log("removed and installed again, in both orders");
    env.tear_down().await
}
