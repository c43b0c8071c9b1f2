//! The JSON of responses, and the schemas of the OpenAPI document.
//!
//! Existing clients depend on the field names: fields are only added, never renamed or removed. Times are RFC 3339 with
//! `Z`. Request bodies are parsed by `body.rs` and `pulse-core`; the types here repeat their shape for the document.

mod accepted;
mod event;
mod task;
mod text_fields;

pub(crate) use accepted::{BatchAccepted, EventAccepted, Extras, ItemResult, Lenient, Status, WarningDocument};
pub(crate) use event::{BatchDocument, EventAnswer, EventDocument, EventPage, StoredEventDocument, UnprocessedAnswer};
pub(crate) use task::TaskAnswer;
