//! `pulse crd`: prints the CustomResourceDefinition, which has to be applied before the operator starts.

use pulse_crd::{crd, yaml};

use crate::output::print_line;

/// Prints the CustomResourceDefinition of `PulseIngest` as YAML.
pub(crate) fn run() -> anyhow::Result<()> {
    print_line(yaml::print(&crd())?.trim_end())
}
