//! Both charts and the manifests: by both majors of Helm, by kubeconform, and by a real API server.

mod admission;
mod helm;
mod lifecycle;
mod objects;
mod rendering;
mod schemas;
mod values;
