//! What a client learns about its input: invalid values, and differences between what was sent and what was accepted.

use std::borrow::Cow;

use serde::Serialize;

/// A difference between what was sent and what was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Stable code in snake case.
    pub code: &'static str,
    /// Human-readable description.
    pub detail: String,
    /// Name of the field; absent if the warning is about the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<Cow<'static, str>>,
    /// Index of the item in a batch, from 0; absent outside a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl Warning {
    /// Creates a warning about the whole body.
    pub fn new(code: &'static str, detail: String) -> Self {
        Self { code, detail, field: None, index: None }
    }

    /// Creates a warning that `field` was ignored, and why.
    pub fn ignored(field: impl Into<Cow<'static, str>>, code: &'static str, reason: &str) -> Self {
        let field = field.into();
        Self { code, detail: format!("field `{field}` was ignored: {reason}"), field: Some(field), index: None }
    }
}

/// A part of the path to an invalid value, in the form of FastAPI: `["body", "events", 3, "event_name"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Location {
    /// Name of a field.
    Field(Cow<'static, str>),
    /// Index of an item.
    Index(usize),
}

/// An invalid value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path to the value, starting with `body`, `query` or `path`.
    pub loc: Vec<Location>,
    /// What is wrong, and which values are valid.
    pub msg: String,
    /// Stable code in snake case.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Index of the item in a batch, from 0; absent outside a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

impl FieldError {
    /// Creates an error at `field` of the body; an empty name means the body itself.
    pub fn new(field: impl Into<Cow<'static, str>>, kind: &'static str, msg: impl Into<String>) -> Self {
        let field = field.into();
        let mut loc = vec![Location::Field("body".into())];
        if !field.is_empty() {
            loc.push(Location::Field(field));
        }
        Self { loc, msg: msg.into(), kind, index: None }
    }

    /// Moves the error to item `index` of a batch.
    pub fn in_batch(mut self, index: usize) -> Self {
        self.loc.splice(1..1, [Location::Field("events".into()), Location::Index(index)]);
        self.index = Some(index);
        self
    }
}
