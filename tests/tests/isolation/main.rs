//! What one client does stays its own affair: locked rows, poisonous events, tasks that kill workers, and memory.

mod backlog;
mod batches;
mod bodies;
mod connections;
mod crashes;
mod erase;
mod lists;
mod locks;
mod memory;
mod month_end;
mod old_snapshot;
