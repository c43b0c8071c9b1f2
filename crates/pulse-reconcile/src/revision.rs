//! The revision: the image and the reference to the database. Only these fields wait for a migration.

use pulse_crd::names::short_hash;
use pulse_crd::{ImageSpec, PulseIngestSpec, Revision};

/// Returns the revision that `spec` asks for.
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
        // The CRD schema rejects this.
        (None, None) => image.repository.clone(),
    }
}

fn version(image: &ImageSpec) -> String {
    let digest = image.digest.as_deref().map(|digest| digest.chars().take(19).collect());
    image.tag.clone().or(digest).unwrap_or_default()
}
