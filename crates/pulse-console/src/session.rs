//! Sessions: the token in a cookie, verified with each request. There is no state that could be fixed or lost.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use pulse_http::{Claims, Scope, Verifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::console::Console;
use crate::error::PageError;
use crate::fields::Fields;

const COOKIE: &str = "pulse_console";
pub(crate) const THEME: &str = "pulse_theme";

/// The person who looks at a page.
pub(crate) struct Viewer {
    /// The `sub` of the token.
    pub(crate) subject: String,
    pub(crate) is_admin: bool,
    /// The user whose data is shown; `None` shows all.
    pub(crate) user_id: Option<i64>,
    /// The token that each form sends.
    pub(crate) csrf: String,
    /// The theme that was chosen; `None` follows the system.
    pub(crate) theme: Option<&'static str>,
}

impl Viewer {
    pub(crate) fn require_admin(&self) -> Result<(), PageError> {
        if self.is_admin { Ok(()) } else { Err(PageError::NeedsAdmin) }
    }

    /// Whether this viewer may do what the form asks for.
    pub(crate) fn may_act(&self, console: &Console, fields: &Fields) -> Result<(), PageError> {
        if !bool::from(self.csrf.as_bytes().ct_eq(fields.get("csrf").as_bytes())) {
            return Err(PageError::Forged);
        }
        self.require_admin()?;
        if console.config.read_only { Err(PageError::ReadOnly) } else { Ok(()) }
    }
}

impl FromRequestParts<Console> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let to_login = || Redirect::to("/login").into_response();
        let token = cookie(&parts.headers, COOKIE).ok_or_else(to_login)?;
        let claims = verify(&console.verifier, token).ok_or_else(to_login)?;
        let csrf = csrf_of(token);
        let is_admin = claims.require(Scope::Admin).is_ok();
        let user = match console.user(&claims.subject).await {
            Ok(user) => user,
            // The figures in memory need no PostgreSQL, and everything else asks it again.
            Err(error) if is_admin && parts.method == Method::GET => {
                tracing::debug!(%error, "an administrator cannot be looked up");
                None
            }
            Err(error) => return Err(PageError::from(error).into_response()),
        };
        if user.as_ref().is_some_and(|user| user.disabled_at.is_some()) {
            return Err(to_login());
        }
        // A user without events sees nothing: no id is negative.
        let user_id = (!is_admin).then(|| user.map_or(-1, |user| user.id));
        let theme = theme(&parts.headers);
        Ok(Self { subject: claims.subject, is_admin, user_id, csrf, theme })
    }
}

/// The claims of a token that opens the console.
pub(crate) fn verify(verifier: &Verifier, token: &str) -> Option<Claims> {
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    let claims = verifier.verify(Some(&header)).ok()?;
    [Scope::Admin, Scope::EventsRead].into_iter().any(|scope| claims.require(scope).is_ok()).then_some(claims)
}

/// Only who knows the token can compute it, and pages of other origins do not.
fn csrf_of(token: &str) -> String {
    let digest = Sha256::new().chain_update("csrf of the console:").chain_update(token).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(crate) fn theme(headers: &HeaderMap) -> Option<&'static str> {
    let chosen = cookie(headers, THEME)?;
    ["light", "dark"].into_iter().find(|theme| *theme == chosen)
}

/// The cookie of a session, for as long as the browser runs; an empty token ends it. `Secure` if a proxy in front says that
/// the connection of the browser is encrypted.
pub(crate) fn set_cookie(headers: &HeaderMap, token: &str) -> String {
    let is_tls = headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
    let secure = if is_tls { "; Secure" } else { "" };
    let end = if token.is_empty() { "; Max-Age=0" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_among_others_and_is_secure_behind_tls() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=1; pulse_console=t.o.k; pulse_theme=dark\""));
        assert_eq!((cookie(&headers, COOKIE), theme(&headers)), (Some("t.o.k"), None));
        assert!(!set_cookie(&headers, "t").contains("Secure"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        assert_eq!(set_cookie(&headers, ""), "pulse_console=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0");
    }

    #[test]
    fn forms_of_two_sessions_have_different_tokens() {
        assert_ne!(csrf_of("a"), csrf_of("b"));
        assert_eq!(csrf_of("a").len(), 64);
    }
}
