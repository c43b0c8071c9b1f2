//! The operator: one `PulseIngest`, reconciled.
//!
//! It migrates the database, rolls the roles out, scales the workers from the depth of the Redis queue, and explains
//! each step. Reconcile reads `observe → validate → plan → desired → apply → status`; I/O is only at both ends.
//!
//! It never opens the database, never reads a Secret that the object does not name, and never needs to be up for a
//! deletion to end.

pub mod crd;
pub mod scaling;
pub mod yaml;
