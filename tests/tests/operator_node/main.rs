//! The operator on a real Kubernetes node: real pods of our image, with a real PostgreSQL and Redis.
//!
//! The tests share one node and run one after the other. Each has a namespace that enforces the Pod Security Standard
//! `restricted`.
#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

mod certificates;
mod changes;
mod migrations;
mod node_env;
mod pod_templates;
mod redis_nodes;
mod rollout;
mod scaling;
mod worker_watch;
