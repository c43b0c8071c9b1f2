//! Migrations that would not end: the Job of a wrong tag, and a container beside the migration that never ends.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::node_env::NodeEnv;

/// Time until a corrected tag is rolled out.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn corrected_tag_rolls_out_beside_a_container_that_never_ends() -> anyhow::Result<()> {
    let env = NodeEnv::start("correction").await?;
    let _operator = env.start_operator()?;
    // A scheduler waits for the schema, and then works.
    let endless = json!({
        "name": "endless", "image": "localhost/pulse:one", "imagePullPolicy": "Never", "args": ["scheduler"],
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        "env": [
            { "name": "PULSE_DATABASE_URL", "valueFrom": { "secretKeyRef": { "name": "main-database", "key": "uri" } } },
            { "name": "PULSE_REDIS_URL", "valueFrom": { "secretKeyRef": { "name": "main-redis", "key": "url" } } },
        ],
    });
    let migrations = json!({ "podTemplate": { "sidecars": [endless] } });
    env.apply(json!({ "image": { "tag": "misspelt" }, "migrations": migrations })).await?;
    let not_starting = async || Ok(env.reason("Migrated", "False").await? == "MigrationPodNotStarting");
    env.eventually("the wrong tag is reported", not_starting).await?;

    let corrected = Instant::now();
    env.patch_spec(json!({ "image": { "tag": "one" } })).await?;
    env.wait_for_condition("Ready").await?;
    let took = corrected.elapsed();
    assert!(took < LIMIT, "the corrected tag was rolled out after {took:?}");
    let phases: Vec<_> =
        env.pods("migration").await?.into_iter().filter_map(|pod| pod.status.and_then(|status| status.phase)).collect();
    assert_eq!(phases, ["Running"], "the container beside the migration still runs");
    let task = env.post_event("corrected").await?;
    env.wait_until_completed(&task).await
}
