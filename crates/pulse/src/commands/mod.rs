//! The subcommands, one file each.

pub(crate) mod api;
pub(crate) mod check;
pub(crate) mod crd;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod kubectl;
pub(crate) mod load;
pub(crate) mod migrate;
pub(crate) mod operator;
pub(crate) mod queue;
pub(crate) mod reference;
pub(crate) mod scheduler;
pub(crate) mod tasks;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod worker;
