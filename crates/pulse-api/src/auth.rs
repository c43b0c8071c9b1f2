//! Authentication and authorisation as extractors, which run before the body is read.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use pulse_http::{Problem, RequestSubject, Scope};

use crate::limits::{Place, Usage};
use crate::state::AppState;
use crate::users::KnownUser;

/// A client with the scope `events:write`, within the limits of its user. Its user may be disabled: the statement that
/// accepts events rejects it.
pub(crate) struct Writer {
    pub user_id: i64,
    pub usage: Arc<Usage>,
    /// Taken while the request is in flight.
    pub place: Place,
    /// `sub` of the token.
    pub subject: String,
}

/// A client with the scope `events:read`, within the limits of its user, and limited to the events and tasks of its user.
pub(crate) struct Reader {
    pub user_id: i64,
    pub usage: Arc<Usage>,
    /// Taken while the request is in flight.
    _place: Place,
}

/// Returns the `sub` of a valid token with this scope.
async fn authorize(parts: &Parts, state: &AppState, scope: Scope) -> Result<String, Problem> {
    let claims = state.verifier.verify(parts.headers.get(AUTHORIZATION)).await?;
    RequestSubject::note(parts, &claims.subject);
    claims.require(scope)?;
    Ok(claims.subject)
}

impl FromRequestParts<AppState> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let subject = authorize(parts, state, Scope::EventsWrite).await?;
        let KnownUser { id: user_id, usage } = state.users.find(&subject).await?;
        Ok(Self { user_id, place: state.limits.admit(&usage)?, usage, subject })
    }
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let subject = authorize(parts, state, Scope::EventsRead).await?;
        let KnownUser { id: user_id, usage } = state.users.find_enabled(&subject).await?;
        Ok(Self { user_id, _place: state.limits.admit(&usage)?, usage })
    }
}
