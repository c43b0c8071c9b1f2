//! `pulse check`: settings of PostgreSQL and Redis that break the promise, or of Kubernetes that keep the operator from
//! its work; each with its fix.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use pulse_operator::{Finding, Kubernetes};
use pulse_tls::Encryption;
use serde::Serialize;

use crate::args::{DatabaseArgs, InstanceArgs, RedisArgs};
use crate::output::{print_json, print_line};

/// Something breaks the promise.
const UNSAFE: u8 = 25;

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
    /// Before an installation: look at Kubernetes instead, as whoever KUBECONFIG or the pod says
    #[arg(long)]
    pre: bool,
    /// With --pre: the namespace of the PulseIngest; that of the context, if not given
    #[arg(long, short, requires = "pre", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    part: &'static str,
    name: String,
    value: String,
    ok: bool,
    fix: Option<String>,
    /// Good to know, and no fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let CheckArgs { instance, database, redis, pre, namespace, json } = args;
    let lines = match (pre, database, redis) {
        (true, _, _) => kubernetes(namespace).await?,
        (false, Some(database), Some(redis)) => servers(instance, database, redis).await?,
        (false, _, _) => {
            bail!("say where both are with --database-url and --redis-url, or look at Kubernetes with --pre")
        }
    };
    report(&lines, json)
}

async fn kubernetes(namespace: Option<String>) -> anyhow::Result<Vec<Line>> {
    let kubernetes = Kubernetes::infer().await?;
    let namespace = namespace.unwrap_or_else(|| kubernetes.namespace().to_owned());
    let findings = pulse_operator::preflight(&kubernetes, &namespace).await?;
    Ok(findings.into_iter().map(|Finding { name, value, fix }| line("kubernetes", name, value, fix)).collect())
}

async fn servers(instance: InstanceArgs, database: DatabaseArgs, redis: RedisArgs) -> anyhow::Result<Vec<Line>> {
    let store = database.connect("check")?;
    let queue = redis.connect(&instance.instance)?;
    let mut lines = Vec::new();
    if let Ok(encryption) = store.encryption().await {
        lines.push(connection(
            "postgresql",
            encryption,
            "say sslmode=verify-full in its URL, with its CA as CA file if it is not a public one",
        ));
    }
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
            lines.push(connection("redis", queue.encryption(), "use rediss:// and its TLS port"));
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
    Ok(lines)
}

fn report(lines: &[Line], json: bool) -> anyhow::Result<ExitCode> {
    let ok = lines.iter().all(|line| line.ok);
    if json {
        print_json(&serde_json::json!({ "ok": ok, "checks": lines }))?;
    } else {
        for Line { part, name, value, ok, fix, note } in lines {
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
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(UNSAFE) })
}

fn line(part: &'static str, name: impl Into<String>, value: String, fix: Option<String>) -> Line {
    Line { part, name: name.into(), value, ok: fix.is_none(), fix, note: None }
}

/// How a server is connected to. Whether that is safe depends on the network, so it is no fault.
fn connection(part: &'static str, encryption: Encryption, how: &'static str) -> Line {
    let is_open = matches!(encryption, Encryption::Plain | Encryption::Unverified | Encryption::VerifiedCa);
    let note = is_open.then_some(how);
    Line { note, ..line(part, "connection", encryption.to_string(), None) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
