//! Attacks on the console, as tables: each row is refused or does no harm.

mod access;
mod content;
mod forms;
mod inputs;
mod sign_in;
mod slow;
mod target;

use std::time::Duration;

use target::{Findings, Target, admin};

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_refused_and_do_no_harm() -> anyhow::Result<()> {
    let target = Target::start().await?;
    let mut findings = Findings::default();
    access::strangers(&target, &mut findings).await?;
    access::other_users(&target, &mut findings).await?;
    forms::forged(&target, &mut findings).await?;
    assert!(target.is_untouched().await?, "{:#?}", findings.0);
    inputs::filters(&target, &mut findings).await?;
    inputs::bodies(&target, &mut findings).await?;
    assert!(target.is_untouched().await?, "{:#?}", findings.0);
    content::escaped(&target, &mut findings).await?;
    content::headers(&target, &mut findings).await?;
    slow::clients(&target).await?;
    slow::expired_stream(&target).await?;
    // Last, because it uses up the sign-ins of this address.
    sign_in::sessions(&target, &mut findings).await?;
    assert!(findings.0.is_empty(), "{:#?}", findings.0);
    let answer = target.get("/", &admin()).await?;
    anyhow::ensure!(answer.status == 200, "the console works as before: {}", answer.text);
    tokio::time::timeout(Duration::from_secs(10), target.console.admin().get("/readyz")).await??;
    Ok(())
}
