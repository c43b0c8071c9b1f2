//! `pulse migrate`: migrates the schema. No other command changes it. The last line of its output states the result,
//! because the operator shows that line when the Job fails.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pulse_store::{GrantedRoles, MigrateConfig, MigrateError, MigrationPlan};
use serde::Serialize;

use crate::act_args::ActArgs;
use crate::args::{DatabaseArgs, InstanceArgs, duration};
use crate::output::{print_json, print_line};

/// Exit codes of failures that a retry cannot fix. All other failures exit with 1.
const CHECKSUM: u8 = 20;
const DESTRUCTIVE: u8 = 21;
const SCHEMA_AHEAD: u8 = 22;
const PLAN_CHANGED: u8 = 23;
const OTHER_INSTANCE: u8 = 24;
const SETTINGS_UNSAFE: u8 = 25;

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    act: ActArgs,
    /// Print the migration plan as JSON, without applying it
    #[arg(long, env = "PULSE_PLAN")]
    plan: bool,
    /// Hash of the approved plan; any other plan is refused
    #[arg(long, env = "PULSE_EXPECT_PLAN", value_name = "HASH")]
    expect_plan: Option<String>,
    /// Also apply migrations after which older versions cannot run
    #[arg(long, env = "PULSE_ALLOW_DESTRUCTIVE")]
    allow_destructive: bool,
    /// Take over a database that belongs to another instance
    #[arg(long, env = "PULSE_TAKE_OVER")]
    take_over: bool,
    /// Role of PostgreSQL that API, worker, scheduler, console and administrators' commands use. Once the migrations are
    /// applied, it gets exactly the privileges that these need. Without it, they use the role that migrates
    #[arg(long, env = "PULSE_SERVING_ROLE", value_name = "NAME")]
    serving_role: Option<String>,
    /// Role of PostgreSQL that may read all but the contents of events (payload, properties, address, agent, session) and
    /// Idempotency-Keys
    #[arg(long, env = "PULSE_READ_ROLE", value_name = "NAME")]
    read_role: Option<String>,
    /// Image reference that becomes part of the plan's hash, so that an approval is valid for one image only; defaults
    /// to the version of the program
    #[arg(long, env = "PULSE_IMAGE", value_name = "REFERENCE")]
    image: Option<String>,
    /// Time limit for the migration; migrations that are applied by then stay applied
    #[arg(long, env = "PULSE_TIME_LIMIT", value_parser = duration)]
    time_limit: Option<Duration>,
    /// Path to a file for the result, one short line of JSON
    #[arg(long, env = "PULSE_RESULT_FILE", value_name = "PATH")]
    result_file: Option<PathBuf>,
}

pub(crate) async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let Some(limit) = args.time_limit else { return migrate(args).await };
    match tokio::time::timeout(limit, migrate(args)).await {
        Ok(done) => done,
        Err(_) => {
            print_line(&format!("not migrated: the time limit of {} was reached", humantime::format_duration(limit)))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let MigrateArgs {
        instance,
        database,
        act,
        plan,
        expect_plan,
        allow_destructive,
        take_over,
        serving_role: serving,
        read_role: read,
        image,
        time_limit: _,
        result_file,
    } = args;
    let image = image.unwrap_or_else(|| binary().to_owned());
    let store = database.connect("migrate")?;
    if plan {
        return match store.plan_migration(&image).await {
            Ok(plan) => {
                write_result(result_file, &plan)?;
                print_json(&plan).map(|()| ExitCode::SUCCESS)
            }
            Err(error) => explain(&error),
        };
    }
    for setting in store.settings().await? {
        if let Some(fix) = setting.fix {
            print_line(&format!("not migrated: {} is {}: {fix}", setting.name, setting.value))?;
            return Ok(ExitCode::from(SETTINGS_UNSAFE));
        }
    }
    let config = MigrateConfig {
        instance: instance.instance,
        binary: image,
        expect_plan,
        allow_destructive,
        take_over,
        roles: GrantedRoles { serving, read },
        act: act.act(),
    };
    match store.migrate(&config).await {
        Ok(done) => {
            write_result(result_file, &done)?;
            let newest = done.pending.last().map_or(done.current, |newest| newest.version);
            print_line(&format!("{} migrations applied, schema {newest}", done.pending.len()))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => explain(&error),
    }
}

/// Applies all pending migrations, for `pulse dev`. Returns how many were applied and the schema version.
#[cfg(feature = "dev-servers")]
pub(crate) async fn bring_up_to_date(store: &pulse_store::Store, instance: &str) -> anyhow::Result<(usize, i64)> {
    let config = MigrateConfig {
        instance: instance.to_owned(),
        binary: binary().to_owned(),
        expect_plan: None,
        allow_destructive: false,
        take_over: false,
        roles: GrantedRoles::default(),
        act: ActArgs::default().act(),
    };
    let done = store.migrate(&config).await?;
    Ok((done.pending.len(), done.pending.last().map_or(done.current, |newest| newest.version)))
}

/// A plan in a few hundred bytes, because a container's termination message has at most 4096.
#[derive(Serialize)]
struct Summary<'a> {
    current: i64,
    pending: usize,
    names: Vec<&'a str>,
    newest: i64,
    destructive: bool,
    ahead: usize,
    hash: &'a str,
}

fn write_result(path: Option<PathBuf>, plan: &MigrationPlan) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let summary = Summary {
        current: plan.current,
        pending: plan.pending.len(),
        names: plan.pending.iter().take(5).map(|migration| migration.name.as_str()).collect(),
        newest: plan.pending.last().map_or(plan.current, |newest| newest.version),
        destructive: plan.pending.iter().any(|migration| !migration.additive),
        ahead: plan.ahead,
        hash: &plan.hash,
    };
    std::fs::write(&path, serde_json::to_string(&summary)?)
        .with_context(|| format!("cannot write the result to {}", path.display()))
}

/// Identifies this program in a plan's hash if `--image` is not set.
fn binary() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn explain(error: &MigrateError) -> anyhow::Result<ExitCode> {
    let code = match error {
        MigrateError::Checksum { .. } => CHECKSUM,
        MigrateError::Destructive { .. } => DESTRUCTIVE,
        MigrateError::SchemaAhead { .. } => SCHEMA_AHEAD,
        MigrateError::PlanChanged { .. } => PLAN_CHANGED,
        MigrateError::OtherInstance { .. } => OTHER_INSTANCE,
        MigrateError::Role { .. } | MigrateError::Failed { .. } | MigrateError::Store(_) => 1,
    };
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    print_line(&format!("not migrated: {error}{cause}"))?;
    Ok(ExitCode::from(code))
}
