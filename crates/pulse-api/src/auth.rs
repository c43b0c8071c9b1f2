//! Authentication and authorisation as extractors, which run before the body is read.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use pulse_http::{Problem, Scope};

use crate::state::AppState;

/// A client with the scope `events:write`.
pub(crate) struct Writer {
    pub user_id: i64,
    /// `sub` of the token.
    pub subject: String,
}

/// A client with the scope `events:read`, limited to the events and tasks of its user.
pub(crate) struct Reader {
    pub user_id: i64,
}

async fn authenticate(parts: &Parts, state: &AppState, scope: Scope) -> Result<(i64, String), Problem> {
    let claims = state.verifier.verify(parts.headers.get(AUTHORIZATION))?;
    claims.require(scope)?;
    let user_id = state.users.id_of(&claims.subject).await?;
    Ok((user_id, claims.subject))
}

impl FromRequestParts<AppState> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let (user_id, subject) = authenticate(parts, state, Scope::EventsWrite).await?;
        Ok(Self { user_id, subject })
    }
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let (user_id, _) = authenticate(parts, state, Scope::EventsRead).await?;
        Ok(Self { user_id })
    }
}
