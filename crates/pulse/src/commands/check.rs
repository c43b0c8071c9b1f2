//! `pulse check`: settings of PostgreSQL and Redis that break the promise, each with its fix.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::args::{DatabaseArgs, IngestArgs, RedisArgs};
use crate::output::{print_json, print_line};

/// Something breaks the promise.
const UNSAFE: u8 = 25;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    part: &'static str,
    name: &'static str,
    value: String,
    ok: bool,
    fix: Option<String>,
}

pub(crate) async fn run(CheckArgs { ingest, database, redis, json }: CheckArgs) -> anyhow::Result<ExitCode> {
    let store = database.connect("check")?;
    let queue = redis.connect(&ingest.ingest)?;
    let mut lines = Vec::new();
    match store.settings().await {
        Ok(settings) => lines.extend(
            settings
                .into_iter()
                .map(|setting| line("postgresql", setting.name, setting.value, setting.fix.map(str::to_owned))),
        ),
        Err(error) => lines.push(line(
            "postgresql",
            "connection",
            chain(&error),
            Some("check PULSE_DATABASE_URL and the server".into()),
        )),
    }
    match store.schema_problem().await {
        Ok(None) => lines.push(line("postgresql", "schema", "known".into(), None)),
        Ok(Some(problem)) => lines.push(line("postgresql", "schema", "not ready".into(), Some(problem))),
        Err(error) => lines.push(line("postgresql", "schema", chain(&error), Some("see the lines above".into()))),
    }
    match queue.settings().await {
        Ok(settings) => {
            let old = (!settings.is_new_enough()).then(|| "use Redis 6.2 or newer, or Valkey".to_owned());
            lines.push(line("redis", "version", settings.version, old));
            let evicts = settings.maxmemory_policy != "noeviction";
            let fix = evicts.then(|| "set maxmemory-policy noeviction: anything else may delete the queue".to_owned());
            lines.push(line("redis", "maxmemory-policy", settings.maxmemory_policy, fix));
        }
        Err(error) => {
            lines.push(line("redis", "connection", chain(&error), Some("check PULSE_REDIS_URL and the server".into())))
        }
    }
    let ok = lines.iter().all(|line| line.ok);
    if json {
        print_json(&serde_json::json!({ "ok": ok, "checks": lines }))?;
    } else {
        for Line { part, name, value, ok, fix } in &lines {
            let mark = if *ok { "ok  " } else { "FAIL" };
            print_line(&format!("{mark}  {part}  {name} = {value}"))?;
            if let Some(fix) = fix {
                print_line(&format!("      fix: {fix}"))?;
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(UNSAFE) })
}

fn line(part: &'static str, name: &'static str, value: String, fix: Option<String>) -> Line {
    Line { part, name, value, ok: fix.is_none(), fix }
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
