//! The message of a panic.

use std::any::Any;

/// Returns the text of a caught panic; `no message` if it is not a text.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}
