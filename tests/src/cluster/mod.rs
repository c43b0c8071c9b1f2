//! Real Kubernetes for tests: an API server, a proxy that injects faults in front of it, and a whole node.
//!
//! | type | processes | purpose |
//! |---|---|---|
//! | [`ControlPlane`] | etcd, kube-apiserver, optionally kube-controller-manager | objects of an operator |
//! | [`Proxy`] | a reverse proxy in front of an API server | injected faults, and a log of requests |
//! | [`Node`] | a whole node, with kubelet and containerd | pods that run |
//! | [`DatastorePorts`] | TCP ports for a test's PostgreSQL and Redis | pods that use them |
//!
//! The programs are those of Kubernetes, built by `scripts/kube-tools` from the versions that `tests/tools` pins.

mod access;
mod args;
mod control_plane;
mod datastore_ports;
mod fault;
mod forward;
mod node;
mod proxy;
mod request_info;
mod server;
mod tools;
mod traffic;

pub use access::Access;
pub use control_plane::ControlPlane;
pub use datastore_ports::DatastorePorts;
pub use fault::Fault;
pub use node::{Node, image};
pub use proxy::Proxy;
pub use request_info::RequestInfo;
pub(crate) use tools::storage_program;
pub use tools::{packaging_program, program, protocol_program};
pub use traffic::{InjectedFault, LoggedRequest};
