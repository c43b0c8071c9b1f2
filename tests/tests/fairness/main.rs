//! Fairness between users: a user with many tasks does not delay the tasks of others, and its tasks stay in order.

mod env;
mod full_redis;
mod postgres;
mod queue;
mod roles;
