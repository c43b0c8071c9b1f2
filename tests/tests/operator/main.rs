//! The operator against a real API server. All tests share one control plane; each has a namespace and an operator.

mod applying;
mod console;
mod crd;
mod docs;
mod faults;
mod gitops;
mod leader;
mod lifecycle;
mod migrations;
mod owners;
mod pod_templates;
mod rbac;
mod rollouts;
mod scaling;
mod scaling_rules;
mod secrets;
