//! The scripts that run in Redis. A script is atomic: it changes entries and their counts together.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};

use crate::keys::{GROUP, Keys};

/// Weight of a user's entries up to which its tasks go to the stream of all users. An entry of a small task has weight 1.
/// A user with more is *deep*: its further tasks go to the bulk stream, until it has no entry left.
pub const DEEP: usize = 1000;

/// A script with its arguments.
pub(crate) struct NamedScript {
    /// The name in messages.
    pub(crate) name: &'static str,
    pub(crate) invocation: ScriptInvocation<'static>,
}

static ENQUEUE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/enqueue.lua")));
static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/read.lua")));
static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/remove.lua")));

/// Adds entries: the caller appends task id, user and traceparent (empty for none) of each. Refused as a whole if Redis
/// is full.
pub(crate) fn enqueue(keys: &Keys) -> NamedScript {
    let mut script = ENQUEUE.prepare_invoke();
    script.key(&keys.tasks).key(&keys.bulk).key(&keys.backlog).key(&keys.deep).arg(DEEP);
    NamedScript { name: "enqueue script", invocation: script }
}

/// Delivers up to `count` entries to `consumer`, at most `share` of them from the bulk stream while the other has more.
pub(crate) fn read(keys: &Keys, consumer: &str, count: usize, share: usize) -> NamedScript {
    let mut script = READ.prepare_invoke();
    script.key(&keys.tasks).key(&keys.bulk).arg(GROUP).arg(consumer).arg(count).arg(share);
    NamedScript { name: "read script", invocation: script }
}

/// Acknowledges and deletes entries of both streams; an entry that does not exist is ignored.
pub(crate) fn remove(keys: &Keys, tasks: &[&str], bulk: &[&str]) -> NamedScript {
    let mut script = REMOVE.prepare_invoke();
    script.key(&keys.tasks).key(&keys.bulk).key(&keys.backlog).key(&keys.deep);
    script.arg(GROUP).arg(tasks.len()).arg(tasks).arg(bulk);
    NamedScript { name: "acknowledge script", invocation: script }
}
