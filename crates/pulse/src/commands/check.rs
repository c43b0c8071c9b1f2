//! `pulse check`: finds settings of PostgreSQL and Redis that can lose events. With `--pre` it finds what a cluster
//! lacks for the operator. Each finding has a fix.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use pulse_core::defaults::{
    API_DEDICATED, CONSOLE_CONNECTIONS, PROBE_CONNECTIONS, SCHEDULER_CONNECTIONS, WORKER_CONNECTIONS,
};
use pulse_queue::{Queue, QueueError, RedisSetting, Refusal};
use pulse_store::{OldestSnapshot, Replication, Store};
use pulse_tls::Encryption;

use crate::args::{DatabaseArgs, InstanceArgs, RedisArgs};
use crate::check_result::{CheckResult, check};
use crate::commands::check_restore::{lost_tasks, report_lost};
use crate::commands::kubernetes;
use crate::output::{print_json, print_line};
use crate::roles;

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
    #[command(flatten)]
    processes: ProcessArgs,
    /// Check a cluster before an installation instead of PostgreSQL and Redis, with the credentials of the kubeconfig
    /// or of the pod's service account
    #[arg(long)]
    pre: bool,
    /// Namespace of the PulseIngest, with --pre; defaults to the namespace of the kubeconfig's context
    #[arg(long, short, requires = "pre", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// After PostgreSQL was restored to an earlier moment, print the ids of the tasks that Redis knows and PostgreSQL does
    /// not, instead of the checks: their events are lost. Exits with 25 if there are any
    #[arg(long, conflicts_with = "pre")]
    restore: bool,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs { instance, database, redis, processes, pre, namespace, restore, json } = args;
    let results = match (pre, database, redis) {
        (true, _, _) => kubernetes::check_cluster(namespace).await?,
        (false, Some(database), Some(redis)) => {
            let api_pool = database.database_max_connections;
            let (store, queue) = (database.connect("check")?, redis.connect(&instance.instance)?);
            if restore {
                let ok = report_lost(&lost_tasks(&store, &queue).await?, json)?;
                return Ok(exit_code(ok));
            }
            let needed = processes.connections(api_pool, store.connections_to_follow());
            [check_postgresql(&store, needed).await, check_redis(&store, &queue).await].concat()
        }
        (false, _, _) => {
            bail!("set --database-url and --redis-url, or their files, or check a cluster with --pre")
        }
    };
    report(&results, json)
}

/// Number of processes of each role.
#[derive(Debug, Args)]
struct ProcessArgs {
    /// Number of API processes, each with --database-max-connections, to compare with PostgreSQL's max_connections
    #[arg(long, default_value_t = 1)]
    apis: u32,
    /// Number of worker processes, each with the default pool
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Number of scheduler processes, each with the default pool
    #[arg(long, default_value_t = 1)]
    schedulers: u32,
    /// Number of console processes, each with the default pool
    #[arg(long, default_value_t = 0)]
    consoles: u32,
}

impl ProcessArgs {
    /// Maximum number of connections to PostgreSQL of all these processes.
    fn connections(&self, api_pool: u32, more_of_each: u32) -> u64 {
        let api = api_pool + PROBE_CONNECTIONS + API_DEDICATED;
        let Self { apis, workers, schedulers, consoles } = self;
        let processes = [
            (apis, api),
            (workers, WORKER_CONNECTIONS),
            (schedulers, SCHEDULER_CONNECTIONS),
            (consoles, CONSOLE_CONNECTIONS),
        ];
        processes
            .map(|(processes, connections)| u64::from(*processes) * u64::from(connections + more_of_each))
            .iter()
            .sum()
    }
}

async fn check_postgresql(store: &Store, needed: u64) -> Vec<CheckResult> {
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
            error.to_string(),
            Some("check PULSE_DATABASE_URL, and that PostgreSQL runs".into()),
        )),
    }
    if let Ok(available) = store.max_connections().await {
        let value = format!("{available} available, up to {needed} used by the given roles");
        let note = (needed > available.into()).then_some(
            "raise max_connections, lower --database-max-connections, or run fewer processes: docs/how-to/postgresql.md has the formula",
        );
        results.push(CheckResult { note, ..check("postgresql", "max_connections", value, None) });
    }
    if let Ok(pause) = store.find_pause().await {
        let value =
            pause.as_ref().map_or("none".into(), |pause| format!("since {} by {}", pause.paused_at, pause.actor));
        let note = pause.map(|_| "workers claim nothing until `pulse resume`");
        results.push(CheckResult { note, ..check("postgresql", "pause", value, None) });
    }
    if let Ok(snapshot) = store.oldest_snapshot().await {
        results.push(oldest_snapshot(snapshot));
    }
    if let Ok(found) = store.replication().await {
        results.push(replication(&found));
    }
    results.push(match store.schema_problem().await {
        Ok(None) => check("postgresql", "schema", "known".into(), None),
        Ok(Some(problem)) => check("postgresql", "schema", "not ready".into(), Some(problem)),
        Err(error) => check("postgresql", "schema", error.to_string(), Some("see the lines above".into())),
    });
    results
}

/// Number of transactions after which a snapshot costs more than it can be worth: some minutes of a busy instance.
const OLD_SNAPSHOT: i64 = 100_000;

fn oldest_snapshot(snapshot: Option<OldestSnapshot>) -> CheckResult {
    let is_old = snapshot.as_ref().is_some_and(|snapshot| snapshot.transactions > OLD_SNAPSHOT);
    let note = is_old.then_some(
        "end this transaction, or drop the slot, if it is not a backup: PostgreSQL keeps all settled tasks since, which \
         makes claims and housekeeping slower",
    );
    let value = match snapshot {
        Some(OldestSnapshot { holder, transactions }) => format!("held by {holder} for {transactions} transactions"),
        None => "none".into(),
    };
    CheckResult { note, ..check("postgresql", "oldest snapshot", value, None) }
}

fn replication(Replication { standbys, synchronous }: &Replication) -> CheckResult {
    let (value, note) = match (standbys, synchronous) {
        (0, None) => ("none".into(), None),
        (0, Some(names)) => (
            format!("synchronous ({names}), and no standby is connected"),
            Some("each commit waits for a standby: start one, or empty synchronous_standby_names"),
        ),
        (_, None) => (
            format!("{standbys} connected, asynchronous"),
            Some(
                "a failover may lose the latest events, although they were answered with 202: set synchronous_standby_names",
            ),
        ),
        (_, Some(names)) => (format!("{standbys} connected, synchronous ({names})"), None),
    };
    CheckResult { note, ..check("postgresql", "replication", value, None) }
}

async fn check_redis(store: &Store, queue: &Queue) -> Vec<CheckResult> {
    let settings = match queue.settings().await {
        Ok(settings) => settings,
        Err(error) => return vec![refused("connection", "", &error)],
    };
    let mut results = vec![connection("redis", queue.encryption(), "use rediss:// and the TLS port of Redis")];
    results.extend(settings.into_iter().map(|RedisSetting { name, value, fix, note }| CheckResult {
        note,
        ..check("redis", name, value, fix.map(str::to_owned))
    }));
    results.push(match queue.probe().await {
        Ok(()) => check("redis", "commands", "accepted".into(), None),
        Err((step, error)) => refused("commands", &format!("cannot {step}: "), &error),
    });
    if roles::scheduler_uses_other_redis(store, queue).await {
        results.push(check("redis", "gauges of the scheduler", "missing".into(), Some(roles::OTHER_REDIS.into())));
    }
    results
}

/// A failed check of Redis, with the fix that fits the error.
fn refused(name: &str, step: &str, error: &QueueError) -> CheckResult {
    let (reason, fix) = match error.refusal() {
        Some(Refusal { reason, fix }) => (reason, fix),
        None => (error.to_string(), "check PULSE_REDIS_URL, and that Redis runs"),
    };
    check("redis", name, format!("{step}{reason}"), Some(fix.into()))
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
    Ok(exit_code(ok))
}

fn exit_code(ok: bool) -> ExitCode {
    if ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// The encryption of a connection. It never fails: whether an open connection is safe depends on the network. `advice`
/// is the remark if the server's identity is not verified.
fn connection(part: &'static str, encryption: Encryption, advice: &'static str) -> CheckResult {
    let is_open = matches!(encryption, Encryption::Plain | Encryption::Unverified | Encryption::VerifiedCa);
    let note = is_open.then_some(advice);
    CheckResult { note, ..check(part, "connection", encryption.to_string(), None) }
}
