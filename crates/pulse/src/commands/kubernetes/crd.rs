//! `pulse crd`: prints the CustomResourceDefinition, which has to be applied before the operator starts.

use pulse_crd::{crd, yaml};

use crate::output::print_text;

/// Prints the CustomResourceDefinition of `PulseIngest` as YAML.
pub(crate) fn run() -> anyhow::Result<()> {
    print_text(yaml::print(&crd())?.trim_end())
}
