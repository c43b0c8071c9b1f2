//! A private PostgreSQL and Redis, from the machine's own binaries: for `pulse dev` and the tests.
//!
//! Both listen on unix sockets in their own folder only, with durable settings. Started as root they run as `nobody`,
//! because PostgreSQL refuses to be root. They end with the process that started them, also when it is killed.

mod data_dir;
mod postgres;
mod process;
mod redis;

pub use data_dir::DataDir;
pub use postgres::{Postgres, PostgresConfig};
pub use redis::{Redis, RedisConfig};
