//! `pulse load`: posts events at a fixed rate and measures latency.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::args::duration;
use crate::load::{LoadConfig, run as generate};
use crate::output::{print_json, print_text};
use crate::token_args::TokenArgs;

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Address of the API
    #[arg(long, env = "PULSE_URL", default_value = "http://localhost:8000")]
    url: String,
    #[command(flatten)]
    token: TokenArgs,
    /// Events per second, sent on schedule even if responses are late; without it, as many as the connections allow
    #[arg(long)]
    rate: Option<f64>,
    /// Number of connections, each with one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Duration of the run
    #[arg(long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// Number of events per request; 1 uses the route for single events
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Name of each event
    #[arg(long, default_value = "page_view")]
    event_name: String,
    /// Approximate size of each payload, in bytes
    #[arg(long, default_value_t = 200)]
    payload_bytes: usize,
    /// Path to a file to which the body of each 202 is appended, one line of JSON each
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
        token: token.token()?,
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
        print_text(&report.to_string())?
    }
    Ok(ExitCode::SUCCESS)
}
