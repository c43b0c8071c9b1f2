//! Sessions: the token in a cookie, verified with each request. There is no state that could be fixed or lost.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use pulse_http::{Claims, Encrypted, RequestSubject, Verifier};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::console::Console;
use crate::error::PageError;
use crate::fields::Fields;
use crate::identity::{self, Identity};

const COOKIE: &str = "pulse_console";
pub(crate) const THEME: &str = "pulse_theme";

/// The person who looks at a page.
pub(crate) struct Viewer {
    pub(crate) identity: Identity,
    /// The token that each form sends.
    pub(crate) csrf: String,
    /// The theme that was chosen; `None` follows the system.
    pub(crate) theme: Option<&'static str>,
}

impl Viewer {
    pub(crate) fn require_admin(&self) -> Result<(), PageError> {
        self.identity.require_admin()
    }

    /// Whether a page of this session sent the form.
    pub(crate) fn check_form(&self, fields: &Fields) -> Result<(), PageError> {
        let is_own = self.csrf.as_bytes().ct_eq(fields.get("csrf").as_bytes());
        if bool::from(is_own) { Ok(()) } else { Err(PageError::Forged) }
    }
}

impl FromRequestParts<Console> for Viewer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        // A script would take the page of the sign-in for a stream that ended, and ask again at once.
        let is_stream = parts.uri.path().starts_with("/live/");
        let to_login = || match is_stream {
            true => {
                (StatusCode::UNAUTHORIZED, "There is no session, or its token has expired: sign in.\n").into_response()
            }
            false => Redirect::to("/login").into_response(),
        };
        let token = cookie(&parts.headers, COOKIE).ok_or_else(to_login)?;
        let claims = verify(&console.verifier, token).await.ok_or_else(to_login)?;
        RequestSubject::note(parts, &claims.subject);
        let csrf = csrf_of(token);
        let theme = theme(&parts.headers);
        match Identity::of(console, claims, &parts.method).await {
            Ok(identity) => Ok(Self { identity, csrf, theme }),
            Err(PageError::Disabled) => Err(to_login()),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// The claims of a token that opens the console.
pub(crate) async fn verify(verifier: &Verifier, token: &str) -> Option<Claims> {
    let header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    verifier.verify(Some(&header)).await.ok().filter(identity::opens)
}

/// Refuses forms that other origins send, as far as the browser says. `sec-fetch-site` decides where it is sent; browsers
/// leave it out without TLS, and then `Origin` has to be the address that was asked.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    if request.method() == Method::POST && !is_own_page(request.headers()) {
        return PageError::Forged.into_response();
    }
    next.run(request).await
}

fn is_own_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.is_some() && origin == host
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

/// Whether the connection of the browser is encrypted: that to the console, or as a proxy in front says.
pub(crate) struct IsEncrypted(pub(crate) bool);

impl<S: Sync> FromRequestParts<S> for IsEncrypted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let by_proxy = parts.headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
        Ok(Self(by_proxy || parts.extensions.get::<Encrypted>().is_some()))
    }
}

/// The cookie of a session, for as long as the browser runs; an empty token ends it.
pub(crate) fn set_cookie(IsEncrypted(is_tls): IsEncrypted, token: &str) -> String {
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
        assert!(!set_cookie(IsEncrypted(false), "t").contains("Secure"));
        assert_eq!(
            set_cookie(IsEncrypted(true), ""),
            "pulse_console=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"
        );
    }

    #[test]
    fn forms_of_other_origins_are_refused() {
        let own = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("console:5555"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_own_page(&headers)
        };
        assert!(own(&[]) && own(&[("origin", "http://console:5555")]));
        assert!(own(&[("origin", "https://public.example"), ("sec-fetch-site", "same-origin")]), "behind a proxy");
        for site in ["cross-site", "same-site", ""] {
            assert!(!own(&[("origin", "http://console:5555"), ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["null", "http://evil.example", "http://console", "http://console:5555.evil.example", ""] {
            assert!(!own(&[("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn forms_of_two_sessions_have_different_tokens() {
        assert_ne!(csrf_of("a"), csrf_of("b"));
        assert_eq!(csrf_of("a").len(), 64);
    }
}
