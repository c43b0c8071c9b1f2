//! The operator on a whole node: real pods of our image, and a real PostgreSQL and Redis that they reach.
//!
//! All tests share one node, one after the other; each has a namespace that admits restricted pods only.
#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

mod changes;
mod rollout;
mod scaling;
mod site;
mod watching;
