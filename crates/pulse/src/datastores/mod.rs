//! Private PostgreSQL and Redis servers for `pulse dev` and the tests, run from the programs that are installed.
//!
//! Both have durable settings and listen only on unix sockets in their own directories. If this process runs as root,
//! they run as uid 65534, because PostgreSQL refuses to run as root. On Linux the kernel ends them when this
//! process dies, even after SIGKILL.

mod data_dir;
mod postgres;
mod process;
mod redis;

pub use data_dir::DataDir;
pub use postgres::{Postgres, PostgresConfig};
pub use redis::{Redis, RedisConfig};
