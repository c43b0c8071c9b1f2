//! Schemas of the text fields of an event, from the table in `pulse-core`.

use pulse_core::{TextField, TextFormat};
use utoipa::openapi::schema::{AnyOfBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};

/// Returns the schema of a field as a client posts it.
pub(crate) fn posted_text(field: &TextField) -> Schema {
    match field.format {
        TextFormat::Any => limited(field)
            .schema_type(text_or_null(field))
            .min_length(field.required.then_some(1))
            .description(Some(field.description))
            .build()
            .into(),
        TextFormat::IpAddress => {
            let address =
                |format| limited(field).schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
            AnyOfBuilder::new()
                .description(Some(field.description))
                .item(address(KnownFormat::Ipv4))
                .item(address(KnownFormat::Ipv6))
                .item(ObjectBuilder::new().schema_type(Type::Null))
                .build()
                .into()
        }
    }
}

/// Returns the schema of a field as it is read.
pub(crate) fn stored_text(field: &TextField) -> Schema {
    ObjectBuilder::new().schema_type(text_or_null(field)).description(Some(field.description)).build().into()
}

fn limited(field: &TextField) -> ObjectBuilder {
    ObjectBuilder::new().max_length(Some(field.max_chars))
}

fn text_or_null(field: &TextField) -> SchemaType {
    if field.required { Type::String.into() } else { SchemaType::from_iter([Type::String, Type::Null]) }
}
