//! The subcommands, one file each.

pub(crate) mod api;
#[cfg_attr(not(feature = "archive"), path = "without_archive.rs")]
pub(crate) mod archive;
pub(crate) mod check;
mod check_restore;
pub(crate) mod console;
pub(crate) mod demo;
#[cfg(feature = "dev-servers")]
pub(crate) mod dev;
#[cfg(not(feature = "dev-servers"))]
#[path = "without_dev_servers.rs"]
pub(crate) mod dev;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
#[cfg(not(feature = "kubernetes"))]
#[path = "without_kubernetes.rs"]
pub(crate) mod kubernetes;
pub(crate) mod load;
pub(crate) mod migrate;
pub(crate) mod pause;
pub(crate) mod queue;
#[cfg(feature = "kubernetes")]
pub(crate) mod reference;
pub(crate) mod scheduler;
pub(crate) mod tasks;
pub(crate) mod token;
mod unknown_user;
pub(crate) mod user;
mod user_erase;
mod user_export;
mod user_limit;
pub(crate) mod why;
pub(crate) mod worker;
