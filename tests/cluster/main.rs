//! Installed, used, upgraded and removed as its users do that: by Helm and kubectl, on a real cluster, with images of
//! our own. `make e2e` runs it.
//!
//! The cluster is what `KUBECONFIG` names (`PULSE_E2E_LOAD` is then the command that loads an image archive into it),
//! else `pulse-e2e` of kind's where docker runs, which
//! stays until the next run, else the node of `tests/node`.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

mod cluster;
mod datastores;
mod faults;
mod helm_lifecycle;
mod kubectl_manifests;
mod namespaced_tls_helm3;
mod next;
mod removal;
mod site;
mod upgrade;
