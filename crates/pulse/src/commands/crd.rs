//! `pulse crd` and `pulse rbac`: what has to be applied before the operator starts.

use pulse_operator::{crd, rbac, yaml};

use crate::output::print_line;

/// The definition of `PulseIngest`.
pub(crate) fn crd() -> anyhow::Result<()> {
    print_line(yaml::print(&crd::crd())?.trim_end())
}

/// The rights of an operator of the whole cluster, and those that it needs in its own namespace.
pub(crate) fn rbac() -> anyhow::Result<()> {
    print_line(yaml::print(&rbac::cluster_role())?.trim_end())?;
    print_line("---")?;
    print_line(yaml::print(&rbac::role(false))?.trim_end())
}
