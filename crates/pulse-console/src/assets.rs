//! The files that pages need, in the program, and the security headers of every answer.

use axum::extract::{Path, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const ASSETS: [(&str, &str, &[u8]); 5] = [
    ("tokens.css", "text/css; charset=utf-8", include_bytes!("../assets/tokens.css")),
    ("console.css", "text/css; charset=utf-8", include_bytes!("../assets/console.css")),
    ("inter-subset.woff2", "font/woff2", include_bytes!("../assets/inter-subset.woff2")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("../assets/htmx.min.js")),
    ("hx-sse.min.js", "text/javascript; charset=utf-8", include_bytes!("../assets/hx-sse.min.js")),
];

/// The symbols of all icons.
pub(crate) const SPRITE: &str = include_str!("../assets/sprite.svg");

/// Scripts, styles, fonts and requests of the console's own origin only; nothing inline, no frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; font-src 'self'; \
                      img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, media_type, content)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // An hour: the names do not change with the content.
    let headers = [(header::CONTENT_TYPE, *media_type), (header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, *content).into_response()
}

/// Adds the security headers of pages. pulse-http adds the others.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
