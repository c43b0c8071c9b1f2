//! The HTTP front end: clients that misbehave, directly and behind proxies, do not disturb others.

mod connections;
mod json;
mod protocol;
mod proxies;
mod raw;
