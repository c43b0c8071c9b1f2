//! Acts of administrators, for pages and JSON alike.

mod plan;
mod runner;

use pulse_store::{Act, Via};

pub(crate) use plan::{DEFAULT_RATE, MAX_RATE, Plan, Verb, Wanted, plan};
pub(crate) use runner::{start, stop};

use crate::console::Console;
use crate::error::PageError;
use crate::identity::Identity;

/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 500;

/// A new act of this person.
pub(crate) fn act(identity: &Identity, via: Via, reason: &str) -> Act {
    let reason: String = reason.replace('\0', "").trim().chars().take(MAX_REASON).collect();
    Act::new(identity.subject.clone(), via, Some(reason).filter(|reason| !reason.is_empty()))
}

/// Pauses or resumes all claims; returns whether that changed anything.
pub(crate) async fn pause(console: &Console, identity: &Identity, act: &Act, pauses: bool) -> Result<bool, PageError> {
    identity.may_act(console)?;
    Ok(if pauses { console.store.pause(act).await? } else { console.store.resume(act).await? })
}
