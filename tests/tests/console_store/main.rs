//! What the console reads of PostgreSQL, with real roles that write it.

mod acts;
mod bounds;
mod pages;
mod pause;
mod throughput;
mod workers;

use std::time::Duration;

use pulse_store::{Store, StoreConfig};
use pulse_tests::TestEnv;

const TIMEOUT: Duration = Duration::from_secs(20);

fn store(env: &TestEnv) -> anyhow::Result<Store> {
    let config = StoreConfig {
        url: env.database_url.clone(),
        url_again: None,
        ca: None,
        identity: None,
        max_connections: 2,
        application_name: "pulse console".into(),
    };
    Ok(Store::connect_lazy(&config)?)
}
