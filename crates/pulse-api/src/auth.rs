//! Who calls, and whether they may: extractors that a handler cannot forget, before a byte of the body is read.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use pulse_http::{Problem, Scope};

use crate::state::AppState;

/// A caller who may post events.
pub(crate) struct Writer {
    pub user_id: i64,
    /// The `sub` of the token.
    pub subject: String,
}

/// A caller who may read their own events and tasks.
pub(crate) struct Reader {
    pub user_id: i64,
}

async fn caller(parts: &Parts, state: &AppState, scope: Scope) -> Result<(i64, String), Problem> {
    let claims = state.verifier.verify(parts.headers.get(AUTHORIZATION))?;
    claims.require(scope)?;
    let user_id = state.users.id_of(&claims.subject).await?;
    Ok((user_id, claims.subject))
}

impl FromRequestParts<AppState> for Writer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let (user_id, subject) = caller(parts, state, Scope::EventsWrite).await?;
        Ok(Self { user_id, subject })
    }
}

impl FromRequestParts<AppState> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let (user_id, _) = caller(parts, state, Scope::EventsRead).await?;
        Ok(Self { user_id })
    }
}
