//! Test harness: a private PostgreSQL and Redis per test, and the real binary in any number of processes.
//!
//! PostgreSQL, Redis and the API server are real. Tests wait for conditions with a deadline; they do not sleep for a
//! fixed time.

mod backup;
mod cargo;
mod cgroup;
mod client;
pub mod cluster;
mod daemon;
pub mod documented;
mod env;
mod host;
mod kubelet;
pub mod latency;
mod ledger;
mod link;
mod load;
mod npm;
pub mod operator;
mod otlp;
mod pgbouncer;
mod pki;
mod process;
mod prometheus;
mod proxy;
mod python;
pub mod queue;
mod redis_nodes;
mod s3;
pub mod snapshot;
mod standby;
pub mod tiltfile;
mod tls;
pub mod user_data;
mod wait;

pub use backup::Backup;
pub use cargo::{target_dir_for_copy, without_cargo_env};
pub use cgroup::MemoryCgroup;
pub use client::{Client, Response, SECRET, token};
pub use env::{Frozen, TestEnv, pulse, pulse_output};
pub use host::{binary, cpu_seconds, free_port, libfaketime, send_signal};
pub use ledger::check_ledger;
pub use link::{Link, Network};
pub use load::{load, report};
pub use npm::npm_packages;
pub use otlp::OtlpReceiver;
pub use pgbouncer::PgBouncer;
pub use pki::{Authority, Pair};
pub use process::Process;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use python::{python_tool, python_with, python_with_requirements, repository, run};
pub use redis_nodes::{ClusterRedis, RedisNode, SentinelRedis};
pub use s3::S3;
pub use standby::Standby;
pub use tls::{TlsServers, unrelated_ca};
pub use wait::eventually;
