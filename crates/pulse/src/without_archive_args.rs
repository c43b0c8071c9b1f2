//! Stands in for `archive_args` in a build without the cargo feature `archive`.

use std::sync::Arc;

use anyhow::bail;
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

#[derive(Debug, Args)]
pub(crate) struct UserArchiveArgs {}

impl UserArchiveArgs {
    pub(crate) async fn open(self, store: &Store) -> anyhow::Result<UserArchive> {
        if store.has_archive().await? {
            bail!("months of this instance are archived, and this build cannot read them: use the released binary");
        }
        Ok(UserArchive)
    }
}

pub(crate) struct UserArchive;

impl UserArchive {
    pub(crate) async fn erase(&self, _: i64) -> anyhow::Result<(u64, u64)> {
        Ok((0, 0))
    }

    pub(crate) async fn read(&self, _: i64, _: impl FnMut(&str, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        Ok(())
    }
}
