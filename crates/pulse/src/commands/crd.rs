//! `pulse crd` and `pulse rbac`: what has to be applied before the operator starts.

use clap::Args;
use pulse_operator::{crd, rbac, yaml};

use crate::output::print_line;

/// The definition of `PulseIngest`.
pub(crate) fn crd() -> anyhow::Result<()> {
    print_line(yaml::print(&crd::crd())?.trim_end())
}

#[derive(Debug, Args)]
pub(crate) struct RbacArgs {
    /// Of an operator that looks after its own namespace alone
    #[arg(long)]
    alone: bool,
}

/// The rights of an operator, of the whole cluster or not, and those that it needs in its own namespace.
pub(crate) fn rbac(args: &RbacArgs) -> anyhow::Result<()> {
    if args.alone {
        return print_line(yaml::print(&rbac::role(true))?.trim_end());
    }
    print_line(yaml::print(&rbac::cluster_role())?.trim_end())?;
    print_line("---")?;
    print_line(yaml::print(&rbac::role(false))?.trim_end())
}
