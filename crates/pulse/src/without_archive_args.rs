//! Stands in for `archive_args` in a build without the cargo feature `archive`.

use std::sync::Arc;

use clap::Args;
use pulse_scheduler::MonthArchive;
use pulse_store::Store;

#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {}

impl ArchiveArgs {
    pub(crate) fn open(self, _: &Store, _: &str) -> anyhow::Result<Option<Arc<dyn MonthArchive>>> {
        Ok(None)
    }
}
