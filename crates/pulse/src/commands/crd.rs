//! `pulse crd`: the definition of `PulseIngest`, to be applied before the operator starts.

use crate::output::print_line;

pub(crate) fn run() -> anyhow::Result<()> {
    print_line(pulse_operator::yaml::print(&pulse_operator::crd::crd())?.trim_end())
}
