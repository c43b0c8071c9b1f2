//! The arguments of the program.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use crate::release::Release;

const USAGE: &str =
    "usage: pulse-charts FOLDER [--accept-crd] [--image REGISTRY/PATH --digest sha256:… --source-url URL]";

/// The arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// Folder with `charts/` and `manifests/`.
    pub(crate) folder: PathBuf,
    /// Whether the CRD may change by more than additions.
    pub(crate) accept_crd: bool,
    /// The release that the charts are for; `None` for the charts of the repository.
    pub(crate) release: Option<Release>,
}

impl Args {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let folder = args.next().context(USAGE)?.into();
        let (mut accept_crd, mut image, mut digest, mut source_url) = (false, None, None, None);
        while let Some(arg) = args.next() {
            let value = match arg.as_str() {
                "--accept-crd" => {
                    accept_crd = true;
                    continue;
                }
                "--image" => &mut image,
                "--digest" => &mut digest,
                "--source-url" => &mut source_url,
                _ => bail!(USAGE),
            };
            *value = Some(args.next().context(USAGE)?);
        }
        let release = match (image, digest, source_url) {
            (None, None, None) => None,
            (Some(image), Some(digest), Some(source_url)) => Some(Release::new(image, digest, source_url)?),
            _ => bail!(USAGE),
        };
        ensure!(release.is_none() || !accept_crd, "a release cannot accept changes of the CRD");
        Ok(Self { folder, accept_crd, release })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_needs_its_image_by_digest() {
        let parse = |text: &str| Args::parse(text.split(' ').map(str::to_owned));
        assert_eq!(parse(".").expect("valid").release, None);
        assert!(parse(". --accept-crd").expect("valid").accept_crd);
        let digest = format!("sha256:{}", "0".repeat(64));
        let of = |image: &str, digest: &str| {
            parse(&format!(". --image {image} --digest {digest} --source-url https://a.example/b"))
        };
        assert!(of("registry.example:5000/team/pulse", &digest).is_ok());
        for (image, digest) in [
            ("pulse", &*digest),
            ("registry.example/pulse:1", &digest),
            ("a.example/b@c", &digest),
            ("a.example/b", "sha256:0"),
        ] {
            assert!(of(image, digest).is_err(), "{image} {digest}");
        }
        assert!(parse(". --image a.example/b").is_err(), "an image without its digest");
    }
}
