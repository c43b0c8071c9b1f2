//! The files that pages need, in the program, and the security headers of every answer.

use std::io::Write;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

const ASSETS: [(&str, &str, &[u8]); 6] = [
    ("icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
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

/// The name of this set of files: it changes with their content, so browsers may keep each for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for (name, _, content) in ASSETS {
        digest.update(name);
        digest.update(content);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
});

/// The files, compressed once. A font already is.
static COMPRESSED: LazyLock<Vec<Bytes>> =
    LazyLock::new(|| ASSETS.iter().map(|(_, _, content)| gzip(content, Compression::best())).collect());

/// The path of a file. Those that a style sheet names are beside it.
pub(crate) fn href(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

/// A page of another version, for example while consoles are replaced, gets this version's file, and does not keep it.
pub(crate) async fn asset(Path((version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(place) = ASSETS.iter().position(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (_, media_type, content) = ASSETS[place];
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let about = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, keep)];
    if media_type.starts_with("font/") {
        return (about, content).into_response();
    }
    let vary = [(header::VARY, "accept-encoding")];
    if takes_gzip(&headers) {
        (about, vary, [(header::CONTENT_ENCODING, "gzip")], COMPRESSED[place].clone()).into_response()
    } else {
        (about, vary, content).into_response()
    }
}

/// Compresses pages. Text that a stranger chose and the token of a form are compressed together, but no other site can make
/// a browser ask for such a page: the cookie is `SameSite=Strict`.
pub(crate) async fn compress(request: Request, next: Next) -> Response {
    let wanted = takes_gzip(request.headers());
    let response = next.run(request).await;
    let is_page =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if !is_page {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if !wanted {
        return Response::from_parts(parts, body);
    }
    // A page is one piece in memory, so this neither waits nor copies.
    let Ok(page) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.remove(header::CONTENT_LENGTH);
    (parts, gzip(&page, Compression::fast())).into_response()
}

fn gzip(content: &[u8], level: Compression) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(content.len() / 3), level);
    // A vector takes every write.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default().into()
}

/// Whether the browser takes gzip. All do; `;q=0` refuses it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    let mut codings =
        values.flat_map(|value| value.split(',')).map(|coding| coding.split_once(';').unwrap_or((coding, "")));
    codings.any(|(name, weight)| name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0"))
}

/// Adds the security headers of pages. pulse-http adds the others. Without a referrer for its own pages, browsers would
/// send forms without their origin.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_browsers_that_take_it() {
        let takes = |value: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(takes("gzip, deflate, br, zstd") && takes("br;q=1.0, GZIP;q=0.5"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("") && !takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn files_without_the_page_are_less_than_50_kb() {
        let bytes: usize =
            ASSETS.iter().zip(&*COMPRESSED).map(|((.., content), gzip)| content.len().min(gzip.len())).sum();
        assert!(bytes < 50_000, "{bytes} bytes");
    }
}
