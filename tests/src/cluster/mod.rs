//! Real Kubernetes for tests: the API server itself, a proxy that harms the way to it, and a whole node.
//!
//! | type | what runs | for |
//! |---|---|---|
//! | [`ControlPlane`] | etcd and kube-apiserver, and kube-controller-manager if asked | what an operator reads and writes |
//! | [`Proxy`] | a reverse proxy of ours before an API server | faults on the way, and a log of what was asked |
//! | [`Node`] | a whole node, with kubelet and containerd | pods that really run |
//! | [`Reach`] | ports for a test's PostgreSQL and Redis | pods that use them |
//!
//! Nothing is faked: the programs are Kubernetes' own, built by `scripts/kube-tools` from what `tests/tools` pins.

mod access;
mod args;
mod call;
mod control_plane;
mod fault;
mod forward;
mod node;
mod proxy;
mod reach;
mod server;
mod tools;

pub use access::Access;
pub use call::Call;
pub use control_plane::ControlPlane;
pub use fault::Fault;
pub use node::{Node, image};
pub use proxy::{Injected, Logged, Proxy};
pub use reach::Reach;
pub use tools::{packaging_program, program};
