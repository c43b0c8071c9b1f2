//! Signing in and out, and the theme.

use std::net::{IpAddr, Ipv4Addr};

use axum::Extension;
use axum::extract::State;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use pulse_http::Peer;

use crate::console::Console;
use crate::document;
use crate::error::PageError;
use crate::fields::Fields;
use crate::session::{self, IsEncrypted, Viewer};

fn form(console: &Console, refused: Option<&str>) -> Markup {
    document::gate(
        "Sign in",
        html! {
            p.soft { "Sign in to the console of " b { (console.config.instance) } "." }
            @if let Some(refused) = refused { section.why.why-dead role="alert" { div { p { b { (refused) } } } } }
            form method="post" action="/login" {
                div {
                    label.lab for="token" { "Token" }
                    input.field.mono #token name="token" type="password" autocomplete="current-password" aria-describedby="th" required;
                }
                button.btn.btn-1 { "Sign in" }
            }
            p.small.dim.p-code #th { "A token with the scope admin opens everything, one with events:read the data of its own user. To make one:" }
            div.code { pre tabindex="0" role="region" aria-label="Command" { "pulse token issue --user on-call --scope admin" } }
        },
    )
}

pub(crate) async fn page(State(console): State<Console>) -> Markup {
    form(&console, None)
}

pub(crate) async fn sign_in(
    State(console): State<Console>,
    peer: Option<Extension<Peer>>,
    encrypted: IsEncrypted,
    fields: Fields,
) -> Response {
    // Without an address, all peers count as one.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(Peer(address))| address);
    let Some(attempt) = console.begin_sign_in(peer) else {
        let page = form(&console, Some("Too many tokens were refused: try again in a minute."));
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "60")], page).into_response();
    };
    let token = fields.get("token");
    let Some(claims) = session::verify(&console.verifier, token).await else {
        console.metrics.refused("token", 1);
        let refused = "The token is invalid, has expired, or lacks the scopes admin and events:read: use another one.";
        return (StatusCode::UNAUTHORIZED, form(&console, Some(refused))).into_response();
    };
    attempt.succeeded();
    let home = if claims.require(pulse_http::Scope::Admin).is_ok() { "/" } else { "/tasks" };
    ([(header::SET_COOKIE, session::set_cookie(encrypted, token))], Redirect::to(home)).into_response()
}

pub(crate) async fn sign_out(viewer: Viewer, encrypted: IsEncrypted, fields: Fields) -> Result<Response, PageError> {
    viewer.check_form(&fields)?;
    Ok(([(header::SET_COOKIE, session::set_cookie(encrypted, ""))], Redirect::to("/login")).into_response())
}

/// Sets the theme, and shows the same page again.
pub(crate) async fn theme(viewer: Viewer, headers: HeaderMap, fields: Fields) -> Result<Response, PageError> {
    viewer.check_form(&fields)?;
    let theme = if fields.get("theme") == "dark" { "dark" } else { "light" };
    let cookie = format!("{}={theme}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000", session::THEME);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&page_of(&headers))).into_response())
}

/// The page that sent a form, as far as the browser says; the overview otherwise.
fn page_of(headers: &HeaderMap) -> String {
    let referer = headers.get(header::REFERER).and_then(|referer| referer.to_str().ok()?.parse::<Uri>().ok());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = referer.filter(|page| page.authority().map(Authority::as_str) == host);
    let path = own.as_ref().and_then(|page| page.path_and_query()).map_or("/", PathAndQuery::as_str);
    // Two slashes would begin the name of another host.
    if path.starts_with("//") { "/".into() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn page_of_a_form_is_one_of_the_console() {
        let page = |referer: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("console:5555"));
            headers.insert(header::REFERER, HeaderValue::from_static(referer));
            page_of(&headers)
        };
        assert_eq!(page("http://console:5555/tasks?q=state%3Adead"), "/tasks?q=state%3Adead");
        for other in ["http://evil.example/tasks", "http://console:5555//evil.example/", "/tasks", "", "%"] {
            assert_eq!(page(other), "/", "{other}");
        }
    }
}
