//! The text fields of an event. Parsing, the OpenAPI document, and the filters of the event list come from the rows here.
//!
//! A new text field is a member of [`TextFields`], a row of [`TEXT_FIELDS`], a column of `events`, and its place in the
//! statements of `pulse-store`.

use serde::Serialize;

/// The text fields of an event, as they were posted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "TEXT_FIELDS describes the fields")]
pub struct TextFields {
    pub event_name: String,
    pub event_type: String,
    pub source: Option<String>,
    pub session_id: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
}

/// A row of [`TEXT_FIELDS`].
#[derive(Debug)]
pub struct TextField {
    /// Name in JSON, and of the column.
    pub name: &'static str,
    /// Description in the OpenAPI document.
    pub description: &'static str,
    /// Maximum length, in characters.
    pub max_chars: usize,
    /// Whether the field must be present and must not be empty.
    pub required: bool,
    /// Which texts are valid.
    pub format: TextFormat,
    /// Whether the event list has a filter with this name.
    pub filterable: bool,
    /// A valid value.
    pub example: &'static str,
    pub(crate) set: fn(&mut TextFields, String),
}

/// Which texts are valid in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// Any text.
    Any,
    /// An IPv4 or IPv6 address.
    IpAddress,
}

/// Every text field, in the order of [`TextFields`].
pub const TEXT_FIELDS: &[TextField] = &[
    TextField {
        name: "event_name",
        description: "Name of the event.",
        max_chars: 255,
        required: true,
        format: TextFormat::Any,
        filterable: true,
        example: "page_view",
        set: |fields, text| fields.event_name = text,
    },
    TextField {
        name: "event_type",
        description: "Type of the event.",
        max_chars: 100,
        required: true,
        format: TextFormat::Any,
        filterable: true,
        example: "engagement",
        set: |fields, text| fields.event_type = text,
    },
    TextField {
        name: "source",
        description: "Source of the event.",
        max_chars: 100,
        required: false,
        format: TextFormat::Any,
        filterable: true,
        example: "web",
        set: |fields, text| fields.source = Some(text),
    },
    TextField {
        name: "session_id",
        description: "Session of the client.",
        max_chars: 255,
        required: false,
        format: TextFormat::Any,
        filterable: true,
        example: "sess_123",
        set: |fields, text| fields.session_id = Some(text),
    },
    TextField {
        name: "ip_address",
        description: "An IPv4 or IPv6 address. Other text is ignored with a warning; `Prefer: handling=strict` rejects it.",
        max_chars: 45,
        required: false,
        format: TextFormat::IpAddress,
        filterable: false,
        example: "192.168.1.1",
        set: |fields, text| fields.ip_address = Some(text),
    },
    TextField {
        name: "user_agent",
        description: "User agent of the client.",
        max_chars: 2048,
        required: false,
        format: TextFormat::Any,
        filterable: false,
        example: "Mozilla/5.0",
        set: |fields, text| fields.user_agent = Some(text),
    },
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rows_describe_the_members() {
        let mut fields = TextFields::default();
        for row in TEXT_FIELDS {
            (row.set)(&mut fields, row.example.into());
        }
        let expected: Value = TEXT_FIELDS.iter().map(|row| (row.name.to_owned(), json!(row.example))).collect();
        assert_eq!(serde_json::to_value(&fields).expect("serialises"), expected);
    }

    #[test]
    fn absent_fields_are_null_unless_required() {
        let absent = serde_json::to_value(TextFields::default()).expect("serialises");
        for row in TEXT_FIELDS {
            assert_eq!(absent[row.name].is_null(), !row.required, "{}", row.name);
        }
    }
}
