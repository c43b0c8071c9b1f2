//! Both charts and the manifests, checked with Helm 3 and 4, with kubeconform, and with a real API server.

mod admission;
mod external_scaling;
mod foreign_crds;
mod helm;
mod lifecycle;
mod network;
mod objects;
mod policies;
mod reachability;
mod release;
mod rendering;
mod schemas;
mod values;
