//! `pulse check --restore`: what a restored PostgreSQL lacks, as far as Redis knows it.

use pulse_queue::Queue;
use pulse_store::Store;
use uuid::Uuid;

use crate::output::{print_json, print_line};

/// Number of entries in Redis, and the tasks of those that PostgreSQL does not have.
pub(crate) struct Lost {
    entries: usize,
    tasks: Vec<Uuid>,
}

pub(crate) async fn lost_tasks(store: &Store, queue: &Queue) -> anyhow::Result<Lost> {
    let mut lost = Lost { entries: 0, tasks: Vec::new() };
    let mut entries = queue.entries();
    while let Some(ids) = entries.next().await? {
        lost.entries += ids.len();
        lost.tasks.extend(store.unknown_tasks(&ids).await?);
    }
    lost.tasks.sort_unstable();
    lost.tasks.dedup();
    Ok(lost)
}

/// Prints the tasks. Returns whether there are none.
pub(crate) fn report_lost(Lost { entries, tasks }: &Lost, json: bool) -> anyhow::Result<bool> {
    if json {
        print_json(&serde_json::json!({ "ok": tasks.is_empty(), "entries": entries, "lost_tasks": tasks }))?;
    } else {
        tasks.iter().try_for_each(|id| print_line(&id.to_string()))?;
        print_line(&format!("PostgreSQL lacks {} of the tasks of {entries} entries in Redis", tasks.len()))?;
    }
    Ok(tasks.is_empty())
}
