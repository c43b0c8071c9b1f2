//! What a rollout is about: the image and where the database is. Only these wait for a migration.

use crate::crd::{ImageSpec, PulseIngestSpec, Revision};
use crate::names::short_hash;

/// The revision that `spec` asks for.
pub fn desired(spec: &PulseIngestSpec) -> Revision {
    let PulseIngestSpec { image, database, .. } = spec;
    let reference = reference(image);
    let key = &database.url_secret_ref;
    Revision {
        hash: short_hash([reference.as_str(), &key.name, &key.key]),
        version: version(image),
        image: reference,
        database_url_secret_ref: key.clone(),
    }
}

fn reference(image: &ImageSpec) -> String {
    match (&image.digest, &image.tag) {
        (Some(digest), _) => format!("{}@{digest}", image.repository),
        (None, Some(tag)) => format!("{}:{tag}", image.repository),
        // Refused by the schema.
        (None, None) => image.repository.clone(),
    }
}

fn version(image: &ImageSpec) -> String {
    let digest = image.digest.as_deref().map(|digest| digest.chars().take(19).collect());
    image.tag.clone().or(digest).unwrap_or_default()
}
