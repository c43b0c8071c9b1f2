//! The flags that name the archive.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use pulse_archive::{Archive, ErasedRows, MonthCopies};
use pulse_scheduler::MonthArchive;
use pulse_store::Store;

use crate::output::print_progress;

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

/// For the commands about one user, whose rows may be in the archive too.
#[derive(Debug, Args)]
pub(crate) struct UserArchiveArgs {
    /// Archive of the instance: the same URL and variables as for `pulse scheduler`. It is needed if months were archived
    #[arg(long, env = "PULSE_ARCHIVE", value_name = "URL")]
    archive: Option<String>,
}

impl UserArchiveArgs {
    pub(crate) async fn open(self, store: &Store) -> anyhow::Result<UserArchive> {
        let Some(url) = self.archive else {
            if store.has_archive().await? {
                bail!("months of this instance are archived, maybe with rows of the user: give the URL with --archive");
            }
            return Ok(UserArchive(None));
        };
        Ok(UserArchive(Some((Archive::open(&url)?, store.instance().await?))))
    }
}

/// The archive of an instance, if there is one.
pub(crate) struct UserArchive(Option<(Archive, String)>);

impl UserArchive {
    /// Erases the rows of a user, which have to be gone from PostgreSQL. Returns the numbers of rows and of files.
    pub(crate) async fn erase(&self, user_id: i64) -> anyhow::Result<(u64, u64)> {
        let Some((archive, instance)) = &self.0 else { return Ok((0, 0)) };
        let progress = |erased: &ErasedRows| print_progress(&format!("deleted from the archive: {} rows", erased.rows));
        let ErasedRows { rows, files } = pulse_archive::erase_user(archive, instance, user_id, progress).await?;
        Ok((rows, files))
    }

    /// Calls `on_line` with table and row, as JSON, for each row of a user.
    pub(crate) async fn read(
        &self,
        user_id: i64,
        on_line: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some((archive, instance)) = &self.0 else { return Ok(()) };
        pulse_archive::read_user(archive, instance, user_id, on_line).await
    }
}
