//! The JSON of the answers, and the schemas of everything for the OpenAPI document.
//!
//! The fields of the replaced system are here name for name; we only ever add some. Times are RFC 3339 with `Z`.
//! What a client sends is parsed by `pulse-core`; its shape is written here once more, for the document alone.

mod accepted;
mod event;
mod problem;
mod task;

pub(crate) use accepted::{BatchAccepted, EventAccepted, Extras, ItemResult, Lenient, Status, WarningDocument};
pub(crate) use event::{BatchDocument, EventAnswer, EventDocument, EventPage, UnprocessedAnswer};
pub(crate) use problem::{ErrorDocument, ProblemDocument};
pub(crate) use task::TaskAnswer;
