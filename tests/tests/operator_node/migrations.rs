//! Migrations: the Job of a wrong tag, a container beside the migration that never ends, and a separate role.

use std::time::{Duration, Instant};

use anyhow::Context;
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

#[tokio::test(flavor = "multi_thread")]
async fn pods_use_the_serving_role_and_migrations_the_owner() -> anyhow::Result<()> {
    let env = NodeEnv::start("roles").await?;
    let _operator = env.start_operator()?;
    sqlx::raw_sql("CREATE ROLE serving LOGIN; CREATE ROLE reports").execute(&env.servers.db).await?;
    let owner = env.database_url();
    let (before, after) = owner.split_once('@').context("the URL has a user")?;
    let user = before.trim_start_matches("postgres://").split(':').next().unwrap_or_default();
    env.apply_secret("main-database", "uri", &format!("postgres://serving@{after}")).await?;
    env.apply_secret("owner", "uri", owner).await?;
    env.apply(json!({ "database": {
        "migrationUrlSecretRef": { "name": "owner" }, "servingRole": "serving", "readRole": "reports",
    } }))
    .await?;
    env.wait_for_condition("Ready").await?;
    let task = env.post_event("one").await?;
    env.wait_until_completed(&task).await?;
    let of_serving = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'serving' AND application_name ~ '^pulse '";
    assert!(env.servers.number(of_serving).await? >= 3, "API, worker and scheduler");
    let owned = format!("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner <> '{user}'");
    assert_eq!(env.servers.number(&owned).await?, 0, "the role of migrations owns every table");
    let readable = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename = 'tasks' \
                    AND has_table_privilege('reports', 'tasks', 'SELECT')";
    assert_eq!(env.servers.number(readable).await?, 1);
    Ok(())
}
