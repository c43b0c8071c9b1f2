//! One cause with its sentences, and all of them.

use serde::Serialize;

use crate::cause::Cause;

/// A cause that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The stable code.
    pub cause: Cause,
    /// One sentence: what is so, since when, and why.
    pub sentence: String,
    /// One sentence: what to do.
    pub advice: String,
}

impl Reason {
    pub(crate) fn new(cause: Cause, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { cause, sentence: sentence.into(), advice: advice.into() }
    }
}

/// Why a task is in its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The dominant cause.
    #[serde(flatten)]
    pub reason: Reason,
    /// The other causes that hold, the dominant ones first.
    pub also: Vec<Reason>,
}

impl Explanation {
    /// The sentence for the user of the task, who must not learn of other users and of servers.
    #[must_use]
    pub fn sentence_for_user(&self) -> &str {
        // The sentence of a batch quotes that of its child, which follows.
        let said = if self.reason.cause == Cause::Child { self.also.first() } else { Some(&self.reason) };
        if said.is_some_and(|reason| reason.cause.is_own()) {
            &self.reason.sentence
        } else {
            "It waits for something outside of it: an administrator sees what."
        }
    }
}
