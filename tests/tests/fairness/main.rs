//! Fairness between users: a user with many tasks delays nobody else's, and loses no order of its own.

mod env;
mod full_redis;
mod queue;
mod roles;
