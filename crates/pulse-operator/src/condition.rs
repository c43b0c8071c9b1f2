//! The conditions of a status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// Returns the text that Kubernetes uses.
    pub(crate) const fn as_str(self) -> &'static str {
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
pub(crate) struct ConditionState {
    pub(crate) status: ConditionStatus,
    /// Reason, in CamelCase.
    pub(crate) reason: String,
    /// Message, as one sentence.
    pub(crate) message: String,
}

impl ConditionState {
    pub(crate) fn new(status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    /// Returns the state of an existing condition.
    pub(crate) fn of(condition: &Condition) -> Self {
        let known = [ConditionStatus::True, ConditionStatus::False];
        let status = known.into_iter().find(|status| condition.status == *status).unwrap_or(ConditionStatus::Unknown);
        Self::new(status, &condition.reason, &condition.message)
    }
}

/// Keeps the transition time of the previous condition if `status` has not changed.
pub(crate) fn condition(
    name: &str,
    state: ConditionState,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let ConditionState { status, reason, message } = state;
    let before = old.iter().find(|condition| condition.type_ == name && condition.status == status);
    Condition {
        type_: name.to_owned(),
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
pub(crate) fn find<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == name)
}
