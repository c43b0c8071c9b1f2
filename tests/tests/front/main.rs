//! The HTTP front end: clients that misbehave, directly and behind proxies, do not disturb others.

mod connections;
mod protocol;
mod proxies;
mod raw;
