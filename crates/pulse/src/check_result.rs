//! The result of a check of `pulse check`.

use serde::Serialize;

/// The result of one check, as printed with `--json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckResult {
    pub(crate) part: &'static str,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) ok: bool,
    pub(crate) fix: Option<String>,
    /// A remark that does not fail the check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<&'static str>,
}

/// The result of a check, which failed if there is a `fix`.
pub(crate) fn check(part: &'static str, name: impl Into<String>, value: String, fix: Option<String>) -> CheckResult {
    CheckResult { part, name: name.into(), value, ok: fix.is_none(), fix, note: None }
}
