//! The flag that names the archive.

use std::sync::Arc;

use clap::Args;
use pulse_archive::{Archive, MonthCopies};
use pulse_scheduler::MonthArchive;
use pulse_store::Store;

#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// Folder (file:///FOLDER) or S3-compatible store (s3://BUCKET/PREFIX) to which each month is copied before it is
    /// dropped. Variables such as AWS_ACCESS_KEY_ID, AWS_REGION and AWS_ENDPOINT apply. Without it, months are dropped
    /// without a copy
    #[arg(long, env = "PULSE_ARCHIVE", value_name = "URL")]
    archive: Option<String>,
}

impl ArchiveArgs {
    /// Where the scheduler of an instance copies months to.
    pub(crate) fn open(self, store: &Store, instance: &str) -> anyhow::Result<Option<Arc<dyn MonthArchive>>> {
        let Some(url) = self.archive else { return Ok(None) };
        let archive = Archive::open(&url)?;
        Ok(Some(Arc::new(MonthCopies { archive, store: store.clone(), instance: instance.into() })))
    }
}
