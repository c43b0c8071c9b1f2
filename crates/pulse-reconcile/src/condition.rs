//! The conditions of a status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Type of a condition of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the conditions of the CRD")]
pub enum ConditionType {
    Ready,
    Available,
    Migrated,
    Reconciling,
    Stalled,
    QueueReachable,
    ScalingActive,
    ScalingLimited,
    BacklogWithinTarget,
    CrdOutdated,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::Available,
        Self::Migrated,
        Self::Reconciling,
        Self::Stalled,
        Self::QueueReachable,
        Self::ScalingActive,
        Self::ScalingLimited,
        Self::BacklogWithinTarget,
        Self::CrdOutdated,
    ];

    /// Name in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Available => "Available",
            Self::Migrated => "Migrated",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::QueueReachable => "QueueReachable",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::BacklogWithinTarget => "BacklogWithinTarget",
            Self::CrdOutdated => "CRDOutdated",
        }
    }
}

impl PartialEq<ConditionType> for String {
    fn eq(&self, type_: &ConditionType) -> bool {
        self == type_.as_str()
    }
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the values of Kubernetes")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// Returns the text that Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl PartialEq<ConditionStatus> for String {
    fn eq(&self, status: &ConditionStatus) -> bool {
        self == status.as_str()
    }
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionState {
    /// Whether it is true.
    pub status: ConditionStatus,
    /// Reason, in CamelCase.
    pub reason: String,
    /// Message, as one sentence.
    pub message: String,
}

impl ConditionState {
    /// A state with a reason in CamelCase, and a message.
    pub fn new(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    /// Returns the state of an existing condition.
    pub fn of(condition: &Condition) -> Self {
        let known = [ConditionStatus::True, ConditionStatus::False];
        let status = known.into_iter().find(|status| condition.status == *status).unwrap_or(ConditionStatus::Unknown);
        Self::new(status, &condition.reason, &condition.message)
    }
}

/// Keeps the transition time of the previous condition if `status` has not changed.
pub fn condition(
    type_: ConditionType,
    state: ConditionState,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let ConditionState { status, reason, message } = state;
    let before = old.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.as_str().to_owned(),
        status: status.as_str().to_owned(),
        reason,
        message: message.chars().take(4000).collect(),
        last_transition_time: before.map_or_else(
            // The API server stores whole seconds.
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |condition| condition.last_transition_time.clone(),
        ),
        observed_generation: generation,
    }
}

/// Returns the condition of a type.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}
