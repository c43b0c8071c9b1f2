//! What one client does stays its own affair: locked rows, poisonous events, and tasks that kill workers.

mod batches;
mod bodies;
mod connections;
mod crashes;
mod locks;
