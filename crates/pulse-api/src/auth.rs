//! Authentication and authorisation as extractors, which run before the body is read.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use pulse_http::{Problem, Scope};

use crate::state::AppState;

/// A client with the scope `events:write`. Its user may be disabled: the statement that accepts events rejects it.
pub(crate) struct Writer {
    pub user_id: i64,
    /// `sub` of the token.
    pub subject: String,
}

/// A client with the scope `events:read`, limited to the events and tasks of its user.
pub(crate) struct Reader {
    pub user_id: i64,
}

/// Returns the `sub` of a valid token with this scope.
fn authorize(parts: &Parts, state: &AppState, scope: Scope) -> Result<String, Problem> {
    let claims = state.verifier.verify(parts.headers.get(AUTHORIZATION))?;
    claims.require(scope)?;
    Ok(claims.subject)
}

impl FromRequestParts<AppState> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let subject = authorize(parts, state, Scope::EventsWrite)?;
        Ok(Self { user_id: state.users.id_of(&subject).await?, subject })
    }
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let subject = authorize(parts, state, Scope::EventsRead)?;
        Ok(Self { user_id: state.users.id_of_enabled(&subject).await? })
    }
}
