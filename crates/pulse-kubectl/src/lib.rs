//! The kubectl plugin `kubectl pulse`. It talks to the API server directly, with the user's permissions.
//!
//! Reading (`read.rs`) is separate from the reports (`report.rs`, `preview.rs`) and their text (`text.rs`), which are
//! pure. Only the object itself must be readable: every other part names the permission that is missing.

mod advice;
mod connection;
mod diff;
mod edit;
mod preview;
mod read;
mod report;
pub mod text;

pub use connection::{Plugin, PluginError, Target};
pub use diff::Field;
pub use edit::{Pause, PendingPlan};
pub use preview::{Change, Preview, Scale};
pub use read::Section;
pub use report::{ConditionLine, EventLine, PodLine, StatusReport, Summary};
