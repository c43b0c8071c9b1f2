//! The filter of events as a text, such as `user:ada event:"order paid" type:commerce source:web`.

use pulse_store::console::TailFilter;

use crate::console::Console;
use crate::error::PageError;
use crate::filter_text;
use crate::identity::Identity;

const KEYS: [&str; 4] = ["user", "event", "type", "source"];

/// Reads a filter, and what is wrong with it. Others than administrators see their own data, whatever they ask for.
pub(crate) async fn read(
    console: &Console,
    identity: &Identity,
    text: &str,
) -> Result<(TailFilter, Vec<String>), PageError> {
    let (known, mut problems) = filter_text::read(text, &KEYS)?;
    let mut filter = TailFilter { user_id: identity.user_id, ..TailFilter::default() };
    for (key, value) in known {
        match key {
            "event" => filter.event_name = Some(value),
            "type" => filter.event_type = Some(value),
            "source" => filter.source = Some(value),
            _ => match filter_text::user(console, identity, &value).await? {
                Some(user) => filter.user_id = Some(user),
                None => problems.push(filter_text::ONLY_ADMINISTRATORS.into()),
            },
        }
    }
    Ok((filter, problems))
}
