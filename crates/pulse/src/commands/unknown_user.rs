//! The error that commands about users share.

/// The error of a command that names a user who does not exist.
pub(crate) fn unknown(user: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no user `{user}`: `pulse user list` shows all users")
}
