//! The state of a migration, and what is to do for it.

use std::collections::BTreeMap;

use pulse_crd::{MigrationState, MigrationsStatus};

use crate::desired::JobRequest;
use crate::error::ROLLOUT_QUEUED;

/// Reason while a plan waits for its approval.
pub const NEEDS_APPROVAL: &str = "PlanNeedsApproval";
/// Reason while the pod of a Job cannot start.
pub(super) const POD_NOT_STARTING: &str = "MigrationPodNotStarting";

/// State of the schema, and the Jobs to create and to expire.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// `status.migrations`.
    pub status: MigrationsStatus,
    /// True if the schema fits the desired revision.
    pub done: bool,
    /// Job to create.
    pub create: Option<JobRequest>,
    /// Jobs whose results are known, with the time after which they are removed, in seconds.
    pub expire: Vec<(String, i32)>,
    /// Jobs to delete, because they would not end soon: those of other inputs in which nothing was started, and those
    /// with a known result that other containers keep running.
    pub delete: Vec<String>,
    /// True if a Job with a known result has not ended yet.
    pub unended: bool,
    /// The reason why the schema does not fit the desired revision yet.
    pub waiting: Option<MigrationWait>,
}

impl Migration {
    /// Says why the pods of the Job are rejected, if they are: by a quota, Pod Security, or an admission policy.
    pub fn with_rejections(mut self, rejections: &BTreeMap<String, String>) -> Self {
        let job = &self.status.job_name;
        if let (Some(waiting), Some(rejection)) = (&mut self.waiting, rejections.get(job)) {
            waiting.reason = POD_NOT_STARTING;
            waiting.message = format!("the pods of Job {job} are rejected: {rejection}");
        }
        self
    }

    /// Whether a Job runs, or is about to.
    pub fn is_running(&self) -> bool {
        !self.done && matches!(self.status.state, MigrationState::Planning | MigrationState::Running)
    }

    /// Records that the Job is not created yet. `known` is the status before.
    pub fn queued(&mut self, known: MigrationsStatus, message: &str) {
        self.status = known;
        self.waiting = Some(MigrationWait { reason: ROLLOUT_QUEUED, message: message.to_owned(), needs_action: false });
    }
}

/// The reason why the schema does not fit the desired revision yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationWait {
    /// Reason of the condition.
    pub reason: &'static str,
    /// Message of the condition.
    pub message: String,
    /// True if waiting does not help, because the user has to act.
    pub needs_action: bool,
}
