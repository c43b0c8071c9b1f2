//! The operator with Kubernetes' own controllers: deletion, and pods that are rejected.

mod deletion;
mod rejections;
