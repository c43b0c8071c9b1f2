//! `pulse load`: the load generator's flags.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::args::duration;
use crate::load::{LoadConfig, run as generate};
use crate::output::{print_json, print_line};

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The API
    #[arg(long, env = "PULSE_URL", default_value = "http://localhost:8000")]
    url: String,
    /// A token with events:write
    #[arg(long, env = "PULSE_TOKEN", hide_env_values = true)]
    token: String,
    /// Events per second, sent on time whether or not answers came; as many as the connections allow without it
    #[arg(long)]
    rate: Option<f64>,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// For how long
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Events per request; 1 posts single events
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// The name of each event
    #[arg(long, default_value = "page_view")]
    event_name: String,
    /// The size of each payload, about
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// Append what each 202 promised to this file, one JSON line each
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Print the report as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: LoadArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let LoadArgs { url, token, rate, connections, duration, batch, event_name, payload_bytes, ledger, json } = args;
    let config = LoadConfig {
        url,
        token,
        rate,
        connections: usize::from(connections),
        duration,
        batch: usize::from(batch),
        event_name,
        payload_bytes,
        ledger,
        progress: !json,
    };
    let report = generate(config, shutdown).await?;
    if json {
        print_json(&report)?
    } else {
        print_line(&report.to_string())?
    }
    Ok(ExitCode::SUCCESS)
}
