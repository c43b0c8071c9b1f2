//! The document around every page, icons and states.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::assets::{SPRITE, href};

pub(crate) fn icon(name: &str) -> Markup {
    html! { svg.ic aria-hidden="true" { use href={ "#" (name) } {} } }
}

/// A state: shape, word, colour.
pub(crate) fn state(name: &str) -> Markup {
    let known = ["pending", "running", "retrying", "completed", "dead", "cancelled"].contains(&name);
    let shown = if known { name } else { "cancelled" };
    html! { span class={ "st st-" (shown) } { (icon(shown)) (name) } }
}

pub(crate) fn document(title: &str, theme: Option<&str>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=[theme] {
            head {
                meta charset="utf-8";
                title { (title) " · PulseBoard Ingest" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content="includeIndicatorCSS:false";
                link rel="icon" type="image/svg+xml" href=(href("icon.svg"));
                link rel="stylesheet" href=(href("tokens.css"));
                link rel="stylesheet" href=(href("console.css"));
                script src=(href("htmx.min.js")) defer {}
                script src=(href("hx-sse.min.js")) defer {}
            }
            body {
                // The file is part of the program.
                div hidden { (PreEscaped(SPRITE)) }
                (body)
            }
        }
    }
}

pub(crate) fn brand() -> Markup {
    html! { svg aria-hidden="true" { use href="#pulse" {} } "PulseBoard " span { "Ingest" } }
}

/// A page outside a session.
pub(crate) fn gate(title: &str, content: Markup) -> Markup {
    document(title, None, html! { main.gate #main { h1.brand { (brand()) } (content) } })
}
