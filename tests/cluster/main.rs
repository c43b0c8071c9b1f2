//! End-to-end tests: install, use, upgrade and remove the product with Helm and kubectl on a real cluster. The images
//! are built from this repository. `make e2e` runs the tests.
//!
//! The cluster is one of:
//! * the cluster in `KUBECONFIG`, if the variable is set; `PULSE_E2E_LOAD` is the command that loads an image archive
//! * the kind cluster `pulse-e2e`, if docker runs; it stays until the next run
//! * the node of `tests/node`

#![expect(clippy::print_stdout, reason = "prints measurements")]

mod cluster;
mod datastores;
mod e2e_env;
mod evaluation;
mod faults;
mod helm_lifecycle;
mod kubectl_manifests;
mod namespaced_tls_helm3;
mod next_version;
mod own_processor;
mod removal;
mod upgrade;
