//! What the operator decided about an instance, as the console shows it.
//!
//! The operator writes it as JSON, and the console reads it from a file: it has no other access to Kubernetes. Times are
//! RFC 3339 texts. Every field may be missing, so that the two may have different versions.

use serde::{Deserialize, Serialize};

/// Maximum size of the JSON, in bytes. [`Decisions::bounded`] keeps within it.
pub const MAX_DECISIONS_BYTES: usize = 64 * 1024;
/// Maximum number of conditions.
const MAX_CONDITIONS: usize = 16;
/// Maximum length of a sentence, in characters.
const MAX_TEXT: usize = 400;
/// Maximum length of a reason, in characters.
const MAX_REASON: usize = 64;

/// The decisions of the operator about an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// Generation of the spec that they are about.
    pub generation: i64,
    /// Image that runs; none before the first migration is done.
    pub active: Option<String>,
    /// Image that the spec asks for.
    pub desired: Option<String>,
    /// What the operator does, or waits for.
    pub rollout: Option<String>,
    /// State of the schema, and its last migration.
    pub migration: Option<MigrationDecision>,
    /// The last decision on the number of workers.
    pub scaling: Option<ScalingDecision>,
    /// The conditions of the status.
    pub conditions: Vec<ConditionRow>,
}

/// State of the schema, and its last migration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationDecision {
    /// `Unknown`, `Planning`, `Planned`, `Running`, `Done` or `Failed`.
    pub state: String,
    /// Name of the Job.
    pub job: String,
    /// Pending migrations, or why the Job failed.
    pub message: String,
    /// When the Job ended.
    pub finished_at: Option<String>,
}

/// A decision on the number of workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalingDecision {
    /// When it was made.
    pub at: String,
    /// Number of workers before it.
    pub from: i32,
    /// Number of workers after it.
    pub to: i32,
    /// Rule that determined the number.
    pub reason: String,
    /// Limit that was applied last.
    pub limited_by: Option<String>,
    /// Explanation, in a sentence.
    pub message: String,
}

/// A condition of the status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConditionRow {
    /// Type of the condition.
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason, in CamelCase.
    pub reason: String,
    /// Details, and what to do.
    pub message: String,
    /// When the status last changed.
    pub since: String,
}

impl Decisions {
    /// Shortens lists and texts, so that the JSON is at most [`MAX_DECISIONS_BYTES`] long.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.conditions.truncate(MAX_CONDITIONS);
        for row in &mut self.conditions {
            shorten(&mut row.reason, MAX_REASON);
            shorten(&mut row.message, MAX_TEXT);
        }
        let sentences = [&mut self.active, &mut self.desired, &mut self.rollout].into_iter().flatten();
        let sentences = sentences.chain(self.migration.as_mut().map(|migration| &mut migration.message));
        let sentences = sentences.chain(self.scaling.as_mut().map(|scaling| &mut scaling.message));
        sentences.for_each(|text| shorten(text, MAX_TEXT));
        self
    }
}

fn shorten(text: &mut String, characters: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_with_long_texts_stay_within_their_limit() {
        let long = || "\u{1}".repeat(10_000);
        let row = || ConditionRow { name: "Ready".into(), reason: long(), message: long(), ..ConditionRow::default() };
        let decisions = Decisions {
            active: Some(long()),
            desired: Some(long()),
            rollout: Some(long()),
            migration: Some(MigrationDecision { message: long(), ..MigrationDecision::default() }),
            scaling: Some(ScalingDecision { message: long(), ..ScalingDecision::default() }),
            conditions: (0..40).map(|_| row()).collect(),
            ..Decisions::default()
        };
        let text = serde_json::to_string(&decisions.bounded()).expect("prints");
        assert!(text.len() > 1000 && text.len() <= MAX_DECISIONS_BYTES, "{} bytes", text.len());
        let accented = Decisions { rollout: Some("é".repeat(600)), ..Decisions::default() }.bounded();
        assert_eq!(accented.rollout.map(|text| text.chars().count()), Some(MAX_TEXT + 1));
    }

    #[test]
    fn decisions_of_another_version_can_be_read() {
        let read: Decisions = serde_json::from_str(r#"{"active":"a:1","new":{},"scaling":{"to":3}}"#).expect("reads");
        assert_eq!((read.active.as_deref(), read.scaling.map(|scaling| scaling.to)), (Some("a:1"), Some(3)));
    }
}
