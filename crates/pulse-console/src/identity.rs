//! Who asks, for pages and JSON alike.

use axum::http::Method;
use pulse_http::{Claims, Scope};

use crate::console::Console;
use crate::error::PageError;

/// The person behind a valid token.
pub(crate) struct Identity {
    /// The `sub` of the token.
    pub(crate) subject: String,
    pub(crate) is_admin: bool,
    /// The user whose data is shown; `None` shows all.
    pub(crate) user_id: Option<i64>,
    /// End of the token, in seconds since 1970.
    pub(crate) expires_at: u64,
}

impl Identity {
    /// # Errors
    /// [`PageError::Disabled`] if the user was disabled.
    pub(crate) async fn of(console: &Console, claims: Claims, method: &Method) -> Result<Self, PageError> {
        let is_admin = claims.require(Scope::Admin).is_ok();
        let user = match console.user(&claims.subject).await {
            Ok(user) => user,
            // The figures in memory need no PostgreSQL, and everything else asks it again.
            Err(error) if is_admin && method == Method::GET => {
                tracing::debug!(%error, "an administrator cannot be looked up");
                None
            }
            Err(error) => return Err(error.into()),
        };
        if user.as_ref().is_some_and(|user| user.disabled_at.is_some()) {
            return Err(PageError::Disabled);
        }
        // A user without events sees nothing: no id is negative.
        let user_id = (!is_admin).then(|| user.map_or(-1, |user| user.id));
        Ok(Self { subject: claims.subject, is_admin, user_id, expires_at: claims.expires_at })
    }

    pub(crate) fn require_admin(&self) -> Result<(), PageError> {
        if self.is_admin { Ok(()) } else { Err(PageError::NeedsAdmin) }
    }

    /// Whether this person may change anything here.
    pub(crate) fn may_act(&self, console: &Console) -> Result<(), PageError> {
        self.require_admin()?;
        if console.config.read_only { Err(PageError::ReadOnly) } else { Ok(()) }
    }
}

/// Whether the token opens the console.
pub(crate) fn opens(claims: &Claims) -> bool {
    [Scope::Admin, Scope::EventsRead].into_iter().any(|scope| claims.require(scope).is_ok())
}
