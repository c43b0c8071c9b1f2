//! Clients of the service built on FastAPI and pydantic work without a change.

mod differences;
mod forms;
mod script;
