//! The life of an installation, in the order in which it happens to people.

use std::time::Instant;

use crate::cluster::{ALONE, Helm};
use crate::site::E2eEnv;
use crate::{faults, next, removal, upgrade};

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_by_helm_lives_through_everything() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let begin = Instant::now();
    let said = |what: &str| println!("{:6.1} s  {what}", begin.elapsed().as_secs_f64());
    let site = E2eEnv::start("events", Helm::Four).await?;
    said("a cluster with PostgreSQL and Redis");
    let next = tokio::spawn(next::next());
    let urls = site.urls(0, false);
    site.follows_readme("### By Helm", &[("postgres://…", &urls.database), ("redis://…", &urls.redis)]).await?;
    said("README's commands were typed, and the object is Ready");
    let api = site.open().await?;
    site.first_event(&api).await?;
    said("an event came from outside, and is processed");
    // Nothing waits for an approval.
    let here = [("/usr/local/bin", site.programs()), ("kubectl pulse approve", "! kubectl pulse approve")];
    println!("{}", site.follows_readme("### kubectl pulse", &here).await?);

    site.load_image(next.await??).await?;
    let broken = tokio::spawn(next::broken());
    upgrade::under_load(&site, &api).await?;
    said("upgraded under load");
    faults::under_load(&site, &api).await?;
    said("lived through a burst, and lost a pod of every kind");
    site.load_image(broken.await??).await?;
    upgrade::broken_and_rolled_back(&site, &api).await?;
    said("held a broken migration, and was rolled back");
    upgrade::of_the_operator(&site).await?;
    said("the operator was upgraded and rolled back");
    removal::and_return(&site, &api).await?;
    said("removed and installed again, in both orders");
    site.end().await
}
