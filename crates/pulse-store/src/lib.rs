//! PostgreSQL, the source of truth: accept, claim, settle, requeue, read.
//!
//! All SQL of the project is in this crate, checked at compile time, one file per verb or table. Guarantees:
//!
//! * **accept** commits events, their task and the idempotency key in one transaction;
//! * **claim** leases a task to one worker, for a time measured by PostgreSQL's clock;
//! * **settle** applies effects and moves the task in one transaction, and only with the latest fencing token: effects
//!   happen exactly once, however often a task runs;
//! * **requeue** finds tasks that Redis can no longer deliver.
//!
//! The crate does not depend on Redis or HTTP, and migrates only when [`Store::migrate`] is called.

mod accept;
mod acceptance;
mod acts;
mod archive;
mod audit;
mod claim;
mod claimed;
mod connection;
pub mod console;
mod dead_letter;
mod encryption;
mod erase_user;
mod error;
mod event_page;
mod event_walk;
mod events;
mod export_user;
mod gauges;
mod group_commit;
mod hold;
mod idempotency;
mod migrate;
mod migrate_error;
mod month_rows;
mod oldest_snapshot;
mod pause;
mod pooler;
mod primary;
mod privileges;
mod recover;
mod refusal;
mod replication;
mod requeue;
mod restore;
mod retention;
mod row_locks;
mod schedule;
mod server_url;
mod servers;
mod settings;
mod settle;
mod settle_columns;
mod settle_statements;
mod settlement;
mod split;
mod supervisor;
mod task_ids;
mod tasks;
mod throughput;
mod tls;
mod token_keys;
mod totals;
mod unknown_tasks;
mod user_limits;
mod user_rows;
mod users;
mod why;
mod workers;

pub use acceptance::{AcceptError, Acceptance, KeyConflict, NewKey, NewTask, OwnerProblem};
pub use acts::{ActOutcome, ActRun, ActStatus, MatchingTasks, MovedTasks, TaskAction};
pub use archive::{ArchivedFile, MonthCopy, NextCopy};
pub use audit::{Act, AuditRow, Via};
pub use claim::{Claim, Claimer};
pub use connection::{PoolUse, Store};
pub use erase_user::{EraseError, ErasedUser};
pub use error::{ConfigError, StoreError};
pub use event_page::{EventPage, ListError, PageLimits};
pub use events::{EventFilter, PageStart, Position, StoredEvent, UnprocessedEvents};
pub use export_user::{ExportedRows, UserExport};
pub use gauges::{Backlog, QueueLengths, TaskTotals};
pub use group_commit::{Acceptor, AcceptorHealth};
pub use migrate::{MigrateConfig, MigrationPlan, PendingMigration};
pub use migrate_error::MigrateError;
pub use month_rows::MonthRow;
pub use oldest_snapshot::OldestSnapshot;
pub use pause::Pause;
pub use privileges::GrantedRoles;
pub use recover::Recovered;
pub use replication::Replication;
pub use requeue::{LostBounds, RequeuedTask};
pub use retention::{MonthlyTable, OldMonth};
pub use schedule::{JobRecord, LeaderLease};
pub use server_url::{StoreConfig, UrlReader};
pub use settings::Setting;
pub use settle::Settler;
pub use settlement::{Child, ChildState, Effect, Outcome, Settlement};
pub use tasks::{ListedTask, TaskFilter, TaskState, TaskStatus};
pub use token_keys::TokenKey;
pub use user_limits::LimitsUpdate;
pub use user_rows::UserRows;
pub use users::User;
pub use why::{EventFacts, InstanceFacts, JobFacts, LeasedFacts, RowLock, TaskFacts, UserBacklog};
pub use workers::{NameFigures, WorkerReport, WorkerRow, WorkerState};
