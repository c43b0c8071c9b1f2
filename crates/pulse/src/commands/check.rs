//! `pulse check`: finds settings of PostgreSQL and Redis that can lose events. With `--pre` it finds what a cluster
//! lacks for the operator. Each finding has a fix.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use pulse_tls::Encryption;

use crate::args::{DatabaseArgs, InstanceArgs, RedisArgs};
use crate::check_result::{CheckResult, check};
use crate::commands::kubernetes;
use crate::output::{print_json, print_line};

/// The exit code if a check failed.
const FAILED: u8 = 25;

#[derive(Debug, Args)]
#[command(
    mut_arg("database_url", |arg| arg.required(false).required_unless_present("pre")),
    mut_arg("redis_url", |arg| arg.required(false).required_unless_present("pre"))
)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    database: Option<DatabaseArgs>,
    #[command(flatten)]
    redis: Option<RedisArgs>,
    /// Check a cluster before an installation instead of PostgreSQL and Redis, with the credentials of the kubeconfig
    /// or of the pod's service account
    #[arg(long)]
    pre: bool,
    /// Namespace of the PulseIngest, with --pre; defaults to the namespace of the kubeconfig's context
    #[arg(long, short, requires = "pre", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs { instance, database, redis, pre, namespace, json } = args;
    let results = match (pre, database, redis) {
        (true, _, _) => kubernetes::check_cluster(namespace).await?,
        (false, Some(database), Some(redis)) => datastores(instance, database, redis).await?,
        (false, _, _) => {
            bail!("set --database-url and --redis-url, or check a cluster with --pre")
        }
    };
    report(&results, json)
}

async fn datastores(
    instance: InstanceArgs,
    database: DatabaseArgs,
    redis: RedisArgs,
) -> anyhow::Result<Vec<CheckResult>> {
    let store = database.connect("check")?;
    let queue = redis.connect(&instance.instance)?;
    let mut results = Vec::new();
    if let Ok(encryption) = store.encryption().await {
        results.push(connection(
            "postgresql",
            encryption,
            "use sslmode=verify-full in the URL, and --database-ca-file if the server's CA is not a public one",
        ));
    }
    match store.settings().await {
        Ok(settings) => results.extend(
            settings
                .into_iter()
                .map(|setting| check("postgresql", setting.name, setting.value, setting.fix.map(str::to_owned))),
        ),
        Err(error) => results.push(check(
            "postgresql",
            "connection",
            chain(&error),
            Some("check PULSE_DATABASE_URL, and that PostgreSQL runs".into()),
        )),
    }
    match store.schema_problem().await {
        Ok(None) => results.push(check("postgresql", "schema", "known".into(), None)),
        Ok(Some(problem)) => results.push(check("postgresql", "schema", "not ready".into(), Some(problem))),
        Err(error) => results.push(check("postgresql", "schema", chain(&error), Some("see the lines above".into()))),
    }
    match queue.settings().await {
        Ok(settings) => {
            results.push(connection("redis", queue.encryption(), "use rediss:// and the TLS port of Redis"));
            let fix = (!settings.is_new_enough()).then(|| "use Redis 6.2 or newer, or Valkey".to_owned());
            results.push(check("redis", "version", settings.version, fix));
            let evicts = settings.maxmemory_policy != "noeviction";
            let fix = evicts.then(|| "set maxmemory-policy noeviction: other policies may evict the queue".to_owned());
            results.push(check("redis", "maxmemory-policy", settings.maxmemory_policy, fix));
        }
        Err(error) => results.push(check(
            "redis",
            "connection",
            chain(&error),
            Some("check PULSE_REDIS_URL, and that Redis runs".into()),
        )),
    }
    Ok(results)
}

fn report(results: &[CheckResult], json: bool) -> anyhow::Result<ExitCode> {
    let ok = results.iter().all(|result| result.ok);
    if json {
        print_json(&serde_json::json!({ "ok": ok, "checks": results }))?;
    } else {
        for CheckResult { part, name, value, ok, fix, note } in results {
            let mark = if *ok { "ok  " } else { "FAIL" };
            print_line(&format!("{mark}  {part}  {name} = {value}"))?;
            if let Some(fix) = fix {
                print_line(&format!("      fix: {fix}"))?;
            }
            if let Some(note) = note {
                print_line(&format!("      note: {note}"))?;
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The encryption of a connection. It never fails: whether an open connection is safe depends on the network. `advice`
/// is the remark if the server's identity is not verified.
fn connection(part: &'static str, encryption: Encryption, advice: &'static str) -> CheckResult {
    let is_open = matches!(encryption, Encryption::Plain | Encryption::Unverified | Encryption::VerifiedCa);
    let note = is_open.then_some(advice);
    CheckResult { note, ..check(part, "connection", encryption.to_string(), None) }
}

/// An error with its direct cause.
fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
