//! `pulse why` names the cause: 23 single faults, each injected into real servers and processes, and 12 pairs with the
//! cause that dominates. Each row of the table is a line `names(…)` of a test.

mod ended;
mod env;
mod redis;
mod unclaimed;
mod workers;
