//! `pulse migrate`: the only thing that changes the schema. Its last line says why it ended as it did.

use std::process::ExitCode;

use clap::Args;
use pulse_store::{MigrateConfig, MigrateError, Store};

use crate::args::{DatabaseArgs, IngestArgs};
use crate::output::{print_json, print_line};

/// Exit codes that a retry cannot change; 1 is everything that it can.
const CHECKSUM: u8 = 20;
const DESTRUCTIVE: u8 = 21;
const SCHEMA_AHEAD: u8 = 22;
const PLAN_CHANGED: u8 = 23;
const OTHER_INGEST: u8 = 24;
const SETTINGS_UNSAFE: u8 = 25;

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print what would be done, as JSON, and do nothing
    #[arg(long, env = "PULSE_PLAN")]
    plan: bool,
    /// Refuse to carry out any other plan than the one with this hash
    #[arg(long, env = "PULSE_EXPECT_PLAN", value_name = "HASH")]
    expect_plan: Option<String>,
    /// Apply migrations after which an older version cannot run
    #[arg(long, env = "PULSE_ALLOW_DESTRUCTIVE")]
    allow_destructive: bool,
    /// Take over a database that belongs to another ingest
    #[arg(long, env = "PULSE_TAKE_OVER")]
    take_over: bool,
}

pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let MigrateArgs { ingest, database, plan, expect_plan, allow_destructive, take_over } = args;
    let store = database.connect("migrate")?;
    if plan {
        return match store.plan_migration(binary()).await {
            Ok(plan) => print_json(&plan).map(|()| ExitCode::SUCCESS),
            Err(error) => explain(&error),
        };
    }
    for setting in store.settings().await? {
        if let Some(fix) = setting.fix {
            print_line(&format!("not migrated: {} is {}: {fix}", setting.name, setting.value))?;
            return Ok(ExitCode::from(SETTINGS_UNSAFE));
        }
    }
    let config = config(ingest.ingest, expect_plan, allow_destructive, take_over);
    match store.migrate(&config).await {
        Ok(done) => {
            let newest = done.pending.last().map_or(done.current, |newest| newest.version);
            print_line(&format!("{} migrations applied, schema {newest}", done.pending.len()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => explain(&error),
    }
}

/// Migrates a database of our own.
pub(crate) async fn bring_up_to_date(store: &Store, ingest: &str) -> anyhow::Result<(usize, i64)> {
    let done = store.migrate(&config(ingest.to_owned(), None, false, false)).await?;
    Ok((done.pending.len(), done.pending.last().map_or(done.current, |newest| newest.version)))
}

fn config(ingest: String, expect_plan: Option<String>, allow_destructive: bool, take_over: bool) -> MigrateConfig {
    MigrateConfig { ingest, binary: binary().to_owned(), expect_plan, allow_destructive, take_over }
}

fn binary() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn explain(error: &MigrateError) -> anyhow::Result<ExitCode> {
    let code = match error {
        MigrateError::Checksum { .. } => CHECKSUM,
        MigrateError::Destructive { .. } => DESTRUCTIVE,
        MigrateError::SchemaAhead { .. } => SCHEMA_AHEAD,
        MigrateError::PlanChanged { .. } => PLAN_CHANGED,
        MigrateError::OtherIngest { .. } => OTHER_INGEST,
        MigrateError::Store(_) => 1,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    print_line(&format!("not migrated: {error}{cause}"))?;
    Ok(ExitCode::from(code))
}
