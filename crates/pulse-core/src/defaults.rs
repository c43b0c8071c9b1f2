//! Defaults that a flag of a role and a field of `PulseIngest` share, and values of a role that its pod depends on.
//!
//! The flags and the fields refer to these constants. A test in `pulse` compares the variables of the pods with the
//! flags, so a setting that does not refer to one cannot differ either.

/// Port of the API.
pub const API_PORT: u16 = 8000;
/// Port of the console.
pub const CONSOLE_PORT: u16 = 5555;
/// Port of probes and metrics.
pub const ADMIN_PORT: u16 = 9090;

/// Maximum size of a request body, in bytes.
pub const MAX_BODY_BYTES: u32 = 1024 * 1024;
/// Maximum size of an event, in bytes of JSON.
pub const MAX_EVENT_BYTES: u32 = 32 * 1024;
/// Maximum nesting depth of an event.
pub const MAX_EVENT_DEPTH: u32 = 32;
/// Maximum number of events in a batch.
pub const MAX_BATCH: u32 = 100;
/// Maximum number of requests in flight.
pub const MAX_IN_FLIGHT: u32 = 1024;
/// Maximum number of requests of one user that list or count events at the same time, in an API process.
pub const USER_MAX_LISTS: u32 = 4;
/// Maximum number of users that an API process creates per minute.
pub const MAX_NEW_USERS_PER_MINUTE: u32 = 600;
/// Whether the API serves its documentation.
pub const DOCS: bool = true;
/// Time after SIGTERM in which the API still accepts connections.
pub const API_DRAIN_DELAY_SECONDS: u32 = 5;
/// Time after that for requests in progress. No flag changes it.
pub const API_DRAIN_TIMEOUT_SECONDS: u32 = 25;

/// Maximum number of attempts of a task.
pub const MAX_ATTEMPTS: u32 = 3;
/// Number of tasks that a worker processes at the same time.
pub const CONCURRENCY: u16 = 16;
/// Time limit for an attempt.
pub const TASK_TIMEOUT_SECONDS: u32 = 300;
/// Base of the retry delay.
pub const RETRY_BASE_SECONDS: u32 = 2;
/// Maximum retry delay.
pub const RETRY_CAP_SECONDS: u32 = 3600;
/// Random variation of the retry delay, in percent.
pub const RETRY_JITTER_PERCENT: u8 = 0;
/// Time after SIGTERM in which the running tasks of a worker may finish.
pub const WORKER_DRAIN_TIMEOUT_SECONDS: u32 = 60;

/// Pooled connections of an API to PostgreSQL.
pub const API_POOL: u32 = 10;
/// Pooled connections of a worker and of a scheduler, which use them one at a time.
pub const SMALL_POOL: u32 = 2;
/// Pooled connections of a console, for its pages.
pub const CONSOLE_POOL: u32 = 4;
/// Connections of each process for probes, look-ups of users and heartbeats, in addition to the pool.
pub const PROBE_CONNECTIONS: u32 = 2;
/// Connections of a console that read the live figures and the charts.
pub const CONSOLE_DEDICATED: u32 = 2;
/// Connections of an API for the statements that accept events.
pub const API_DEDICATED: u32 = 2;
/// Connections of a worker for the statements that claim and settle tasks.
pub const WORKER_DEDICATED: u32 = 2;
/// Maximum number of connections of an API.
pub const API_CONNECTIONS: u32 = API_POOL + PROBE_CONNECTIONS + API_DEDICATED;
/// Maximum number of connections of a worker.
pub const WORKER_CONNECTIONS: u32 = SMALL_POOL + PROBE_CONNECTIONS + WORKER_DEDICATED;
/// Maximum number of connections of a scheduler.
pub const SCHEDULER_CONNECTIONS: u32 = SMALL_POOL + PROBE_CONNECTIONS;
/// Maximum number of connections of a console.
pub const CONSOLE_CONNECTIONS: u32 = CONSOLE_POOL + PROBE_CONNECTIONS + CONSOLE_DEDICATED;
