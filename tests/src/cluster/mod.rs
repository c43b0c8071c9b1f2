//! Real Kubernetes for tests: the API server itself, a proxy that harms the way to it, and a whole node.
//!
//! | type | what runs | for |
//! |---|---|---|
//! | [`ControlPlane`] | etcd and kube-apiserver, and kube-controller-manager if asked | what an operator reads and writes |
//! | [`Proxy`] | a reverse proxy of ours before an API server | faults on the way, and a log of what was asked |
//!
//! Nothing is faked: the programs are Kubernetes' own, built by `scripts/kube-tools` from what `tests/tools` pins.

mod access;
mod args;
mod call;
mod control_plane;
mod fault;
mod forward;
mod pki;
mod proxy;
mod server;
mod tools;

pub use access::Access;
pub use call::Call;
pub use control_plane::ControlPlane;
pub use fault::Fault;
pub use proxy::{Injected, Logged, Proxy};
