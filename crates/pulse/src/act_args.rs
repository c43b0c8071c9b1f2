//! Flags of the commands that leave a row in the audit log.

use clap::Args;
use pulse_store::{Act, Via};

#[derive(Debug, Default, Args)]
pub(crate) struct ActArgs {
    /// Your name in the audit log; defaults to the user id and the host
    #[arg(long, env = "PULSE_ACTOR", value_name = "NAME")]
    actor: Option<String>,
    /// Why, for the audit log
    #[arg(long, env = "PULSE_BECAUSE", value_name = "TEXT")]
    because: Option<String>,
}

impl ActArgs {
    pub(crate) fn act(self) -> Act {
        let actor = self.actor.unwrap_or_else(|| {
            let uname = rustix::system::uname();
            format!("uid {} on {}", rustix::process::getuid().as_raw(), uname.nodename().to_string_lossy())
        });
        Act::new(actor, Via::Cli, self.because)
    }
}
