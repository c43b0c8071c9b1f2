//! PostgreSQL, the truth: accept, claim, settle, sweep, read.
//!
//! All SQL of the project is here, checked at compile time, one file per verb or table. Guarantees:
//!
//! * **accept** commits events, their task and the idempotency key in one transaction, before anybody hears of them;
//! * **claim** gives a task to one worker for the time of a lease, by PostgreSQL's clock;
//! * **settle** applies effects and moves the task in one transaction, and only for the newest lease: effects happen
//!   exactly once, however often a task runs;
//! * **sweep** finds what Redis cannot deliver any more.
//!
//! It knows nothing of Redis or HTTP, and never migrates by itself.

mod accept;
mod claim;
mod connection;
mod error;
mod events;
mod gauges;
mod idempotency;
mod migrate;
mod requeue;
mod schedule;
mod settings;
mod settle;
mod tasks;
mod tls;
mod users;

pub use accept::{AcceptConfig, AcceptError, Acceptance, Acceptor, NewTask};
pub use claim::Claimer;
pub use connection::{Store, StoreConfig};
pub use error::{ConfigError, EVENTS_USER_FK, StoreError};
pub use events::{EventFilter, PageStart, StoredEvent, UnprocessedEvents};
pub use gauges::Backlog;
pub use idempotency::{KeyConflict, NewKey};
pub use migrate::{MigrateConfig, MigrateError, MigrationPlan, PendingMigration};
pub use requeue::RequeuedTask;
pub use schedule::{LeaderLease, Schedule};
pub use settings::Setting;
pub use settle::{Effect, Outcome, Settlement, Settler};
pub use tasks::{DeadTask, DeadTaskFilter, TaskStatus};
pub use users::User;
