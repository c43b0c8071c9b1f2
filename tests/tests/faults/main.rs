//! Faults of clocks, networks and servers under load. The ledger has to be right after each: no accepted event is lost, and
//! none is processed twice.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

mod clocks;
mod disk;
mod networks;
mod redis;
mod retries;
mod servers;

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually, load, report};
use serde_json::Value;
use tokio::process::Child;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A load run, during which a fault begins and ends.
struct Loaded {
    load: Child,
}

impl Loaded {
    /// Posts `rate` events per second for `seconds`, and waits until the first thousand are accepted.
    async fn start(env: &TestEnv, api: &Process, rate: u32, seconds: u32) -> anyhow::Result<Self> {
        let load = load(env, api, rate, seconds)?;
        let accepted = async || Ok(env.number("SELECT count(*) FROM events").await? > 500);
        eventually("events are accepted", TIMEOUT, accepted).await?;
        Ok(Self { load })
    }

    /// Waits for the end of the run and until each event is processed. Only 503 may have been answered besides 202.
    async fn finish(self, env: &TestEnv) -> anyhow::Result<Value> {
        let report = report(self.load).await?;
        let ended = Instant::now();
        env.wait_until_settled(TIMEOUT).await?;
        let events = env.check_ledger("ledger").await?;
        println!("{events} events, settled {:.1?} after the load, refused: {}", ended.elapsed(), report["refused"]);
        let refused = report["refused"].as_object().into_iter().flatten();
        anyhow::ensure!(refused.into_iter().all(|(code, _)| code == "503"), "{report}");
        Ok(report)
    }
}
