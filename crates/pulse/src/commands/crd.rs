//! `pulse crd`: what has to be applied before the operator starts.

use pulse_operator::{crd, yaml};

use crate::output::print_line;

/// The definition of `PulseIngest`.
pub(crate) fn run() -> anyhow::Result<()> {
    print_line(yaml::print(&crd::crd())?.trim_end())
}
