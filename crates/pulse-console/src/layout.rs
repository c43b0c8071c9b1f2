//! The frame of every page of a session.

use maud::{Markup, html};

use crate::console::Console;
use crate::document::{brand, document, icon};
use crate::frame::MAX_VIEWERS;
use crate::session::Viewer;

const NAVIGATION: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/tasks", "Tasks"),
    ("/dead-letters", "Dead letters"),
    ("/workers", "Workers"),
    ("/events", "Events"),
    ("/schedules", "Schedules"),
    ("/queue", "Queue"),
    ("/audit", "Audit"),
    (INSTANCE, "Instance"),
];

/// The page of the operator's decisions, where there are any.
pub(crate) const INSTANCE: &str = "/instance";

/// Pages that show the data of one user alone, for a viewer who is no administrator.
const OF_ONE_USER: [&str; 2] = ["/tasks", "/events"];

/// A page of a session. `path` is its entry in the navigation.
pub(crate) fn page(console: &Console, viewer: &Viewer, path: &str, title: &str, content: Markup) -> Markup {
    let other = if viewer.theme == Some("dark") { "light" } else { "dark" };
    let role = match (viewer.identity.is_admin, console.config.read_only) {
        (true, false) => "admin",
        (true, true) => "admin, read-only",
        (false, _) => "own data, read-only",
    };
    let is_shown = |href: &str| {
        (viewer.identity.is_admin || OF_ONE_USER.contains(&href))
            && (href != INSTANCE || console.config.decisions_file.is_some())
    };
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.top {
            a.brand href="/" { (brand()) } span.env { (console.config.instance) }
            nav.nav aria-label="Console" {
                @for (href, name) in NAVIGATION.iter().filter(|(href, _)| is_shown(href)) {
                    a href=(href) aria-current=[(*href == path).then_some("page")] { (name) }
                }
            }
            div.top-end {
                form role="search" aria-label="Ids" action="/go" {
                    label.vh for="go" { "Go to an id of a task, event, request or trace" }
                    input.field.jump #go name="id" placeholder="Paste any id" autocomplete="off" spellcheck="false";
                }
                form method="post" action="/theme" {
                    input type="hidden" name="csrf" value=(viewer.csrf);
                    button.btn.btn-bare.btn-ic name="theme" value=(other) { (icon("theme")) span.vh { "Switch to the " (other) " theme" } }
                }
            }
        }
        main.page #main { (content) }
        footer.foot {
            span { "pulse " (env!("CARGO_PKG_VERSION")) } span { "All times are UTC" }
            span.end {
                form method="post" action="/logout" {
                    input type="hidden" name="csrf" value=(viewer.csrf);
                    (viewer.identity.subject) " (" (role) ") " button.btn.btn-bare.btn-s { "Sign out" }
                }
            }
        }
    };
    document(title, viewer.theme, body)
}

/// A part of a page that is replaced once per second, while there is a place for one more viewer.
pub(crate) fn live(console: &Console, part: &str, content: &Markup) -> Markup {
    html! {
        @if console.live.has_place() {
            div hx-sse:connect={ "/live/" (part) } hx-swap="innerMorph" { (content) }
        } @else {
            p role="status" { "This page is not live, because " (MAX_VIEWERS) " others are: reload it for newer figures." }
            div { (content) }
        }
    }
}

/// The fields that each form of an action has.
pub(crate) fn act_fields(viewer: &Viewer) -> Markup {
    html! {
        input type="hidden" name="csrf" value=(viewer.csrf);
        label.vh for="reason" { "Reason, for the audit log" }
        input.field #reason name="reason" maxlength="500" placeholder="Reason, for the audit log" autocomplete="off";
    }
}
