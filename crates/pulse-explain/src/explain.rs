//! The explanation of a task in any state.

use crate::cause::Cause;
use crate::facts::Facts;
use crate::reason::{Explanation, Reason};
use crate::words::{clock, count};
use crate::{running, settled, waiting};

/// Says why a task waits or how it ended, and what to do. The dominant cause is the first in the order of [`Cause`].
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    if let Some(child) = &facts.child {
        return of_batch(facts, explain(child));
    }
    let mut reasons = match facts.status().state.as_str() {
        "pending" | "retrying" => waiting::reasons(facts),
        "running" => running::reasons(facts),
        _ => vec![settled::reason(facts)],
    };
    reasons.extend(disabled_user(facts));
    reasons.sort_by_key(|reason| reason.cause);
    reasons.dedup_by_key(|reason| reason.cause);
    let reason = reasons.remove(0);
    Explanation { reason, also: reasons }
}

/// The state of a split batch is that of its children.
fn of_batch(facts: &Facts, child: Explanation) -> Explanation {
    let status = facts.status();
    let (all, failed) = (status.event_ids.len(), status.children.as_ref().map_or(0, Vec::len));
    let child_id = facts.child.as_ref().map(|child| child.status().id.to_string()).unwrap_or_default();
    let Reason { sentence, advice, cause } = child.reason.clone();
    let first = format!(
        "The batch has ended, but {} of its {} failed and {} of its own; {child_id}: {sentence}",
        failed,
        count(i64::try_from(all).unwrap_or(i64::MAX), "event"),
        if failed == 1 { "has a task" } else { "have tasks" },
    );
    let also = std::iter::once(Reason { cause, ..child.reason }).chain(child.also).collect();
    Explanation { reason: Reason::new(Cause::Child, first, advice), also }
}

fn disabled_user(facts: &Facts) -> Option<Reason> {
    let at = clock(facts.task.user_disabled_at?, facts.now());
    Some(Reason::new(
        Cause::UserDisabled,
        format!("The user is disabled since {at}: new requests are answered 403, and accepted tasks run as before."),
        "`pulse user enable` allows its requests again.",
    ))
}
