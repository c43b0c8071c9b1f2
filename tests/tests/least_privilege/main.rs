//! Least privilege: one role of PostgreSQL migrates, another one serves, and a third one reads.

mod processes;
mod refusals;
mod statements;

use pulse_tests::{TestEnv, pulse_output};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Names that need quotes.
const SERVING: &str = "pulse-serving";
const READ: &str = "Pulse_Read";

/// Servers whose database belongs to the role `owner`, which is no superuser. `env.db` stays a superuser's.
async fn unmigrated() -> anyhow::Result<TestEnv> {
    let mut env = TestEnv::unmigrated().await?;
    execute(&env, "CREATE ROLE owner LOGIN; ALTER DATABASE pulse OWNER TO owner").await?;
    env.database_url = url_of(&env, "owner");
    Ok(env)
}

/// Like [`unmigrated`], with the other roles, and migrated by `owner`. `env.database_url` is that of the serving role.
async fn migrated() -> anyhow::Result<TestEnv> {
    let mut env = unmigrated().await?;
    execute(&env, &format!("CREATE ROLE \"{SERVING}\" LOGIN; CREATE ROLE \"{READ}\" LOGIN")).await?;
    migrate(&env).await?;
    env.database_url = url_of(&env, SERVING);
    Ok(env)
}

/// Migrates as `owner`.
async fn migrate(env: &TestEnv) -> anyhow::Result<()> {
    let args = ["migrate", "--serving-role", SERVING, "--read-role", READ, "--database-url", &url_of(env, "owner")];
    let (code, output) = pulse_output(env, &args).await?;
    anyhow::ensure!(code == 0, "{output}");
    Ok(())
}

fn url_of(env: &TestEnv, role: &str) -> String {
    let (_, server) = env.database_url.split_once('@').unwrap_or_default();
    format!("postgres://{role}@{server}")
}

/// Runs statements as a superuser.
async fn execute(env: &TestEnv, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&env.db).await?;
    Ok(())
}

/// Runs a statement; returns the SQLSTATE of its error, or `""`.
async fn sqlstate(connection: &mut PgConnection, sql: &str) -> anyhow::Result<String> {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await {
        Ok(_) => Ok(String::new()),
        Err(sqlx::Error::Database(error)) => Ok(error.code().unwrap_or_default().into_owned()),
        Err(error) => Err(error.into()),
    }
}

async fn connect(env: &TestEnv, role: &str) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&url_of(env, role)).await?)
}
