//! The pages, and what their forms do.

mod acts;
mod dead_letters;
pub(crate) mod events;
mod instance;
pub(crate) mod overview;
mod sign_in;
mod tables;
mod task;
pub(crate) mod tasks;
mod why;
pub(crate) mod workers;

use axum::Router;
use axum::routing::{get, post};

use crate::assets;
use crate::console::Console;
use crate::layout;

pub(crate) fn routes() -> Router<Console> {
    Router::new()
        .route("/", get(overview::page))
        .route("/tasks", get(tasks::page))
        .route("/tasks/{id}", get(task::page))
        .route("/go", get(tasks::go))
        .route("/dead-letters", get(dead_letters::page))
        .route("/acts/new", get(acts::confirm))
        .route("/acts", post(acts::start))
        .route("/acts/{id}", get(acts::progress))
        .route("/acts/{id}/stop", post(acts::stop))
        .route("/workers", get(workers::page))
        .route("/events", get(events::page))
        .route("/schedules", get(tables::schedules))
        .route("/queue", get(tables::queue))
        .route("/queue/pause", post(acts::pause))
        .route("/queue/resume", post(acts::resume))
        .route("/audit", get(tables::audit))
        .route(layout::INSTANCE, get(instance::page))
        .route("/login", get(sign_in::page).post(sign_in::sign_in))
        .route("/logout", post(sign_in::sign_out))
        .route("/theme", post(sign_in::theme))
        .route("/assets/{version}/{name}", get(assets::asset))
}
