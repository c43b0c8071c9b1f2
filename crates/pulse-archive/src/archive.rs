//! Access to the folder or store.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use pulse_store::MonthlyTable;
use url::Url;

use crate::error::ArchiveError;
use crate::manifest::{FORMAT, FileEntry, MANIFEST, Manifest};

/// Objects that are read at a time.
const PARALLEL_READS: usize = 8;

/// An archive. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Archive {
    /// Opens `file:///FOLDER` or `s3://BUCKET/PREFIX`. The folder is created. Credentials, region and endpoint of S3 are
    /// those of the environment variables that start with `AWS_`, or of the pod or machine.
    ///
    /// # Errors
    /// [`ArchiveError::Url`]. It does not connect.
    pub fn open(text: &str) -> Result<Self, ArchiveError> {
        open(text).map_err(|source| ArchiveError::Url { url: text.into(), source })
    }

    /// The months of the archive, by table and month.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`], and [`ArchiveError::Damaged`] if a manifest is not readable.
    pub async fn list(&self) -> Result<Vec<Manifest>, ArchiveError> {
        let paths = self.objects.list(Some(&self.prefix)).map_ok(|object| object.location);
        let mut paths: Vec<Path> = paths.try_collect().await?;
        paths.retain(|path| path.filename() == Some(MANIFEST));
        paths.sort();
        let manifests = futures_util::stream::iter(paths).map(|path| async move {
            let content = self.objects.get(&path).await?.bytes().await?;
            parse(&path, &content)
        });
        manifests.buffered(PARALLEL_READS).try_collect().await
    }

    /// The manifest of a month such as `2026-01`; `None` if the archive does not have the month.
    ///
    /// # Errors
    /// [`ArchiveError::Unavailable`], and [`ArchiveError::Damaged`] if the manifest is not readable.
    pub async fn find(&self, table: MonthlyTable, month: &str) -> Result<Option<Manifest>, ArchiveError> {
        let path = self.folder(table.as_str(), month).join(MANIFEST);
        match self.objects.get(&path).await {
            Ok(found) => parse(&path, &found.bytes().await?).map(Some),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn folder(&self, table: &str, month: &str) -> Path {
        self.prefix.clone().join(table).join(month)
    }

    /// Writes a file of a month, or its manifest.
    pub(crate) async fn write(&self, table: &str, month: &str, name: &str, content: Bytes) -> Result<(), ArchiveError> {
        self.objects.put(&self.folder(table, month).join(name), PutPayload::from(content)).await?;
        Ok(())
    }

    /// Writes the manifest, which makes the month part of the archive, and deletes the files of its folder that it does not
    /// name.
    pub(crate) async fn commit(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let (table, month) = (manifest.table.as_str(), manifest.month());
        if manifest.rows == 0 {
            self.delete_file(table, &month, MANIFEST).await?;
        } else {
            let content = serde_json::to_vec_pretty(manifest).unwrap_or_default();
            self.write(table, &month, MANIFEST, content.into()).await?;
        }
        self.delete_unnamed_in(&self.folder(table, &month), std::slice::from_ref(manifest)).await
    }

    /// Deletes all files that no manifest names, such as those of an interrupted copy, which then begins again.
    pub(crate) async fn delete_unnamed(&self) -> Result<(), ArchiveError> {
        self.delete_unnamed_in(&self.prefix, &self.list().await?).await
    }

    async fn delete_unnamed_in(&self, folder: &Path, manifests: &[Manifest]) -> Result<(), ArchiveError> {
        let files = manifests.iter().flat_map(|manifest| {
            let folder = self.folder(&manifest.table, &manifest.month());
            manifest.files.iter().map(move |file| folder.clone().join(file.name.as_str()))
        });
        let named: HashSet<Path> = files.collect();
        let paths = self.objects.list(Some(folder)).map_ok(|object| object.location);
        let mut paths: Vec<Path> = paths.try_collect().await?;
        paths.retain(|path| path.extension() == Some("zst") && !named.contains(path));
        for path in &paths {
            self.delete(path).await?;
        }
        Ok(())
    }

    /// Deletes a file that may be gone.
    async fn delete(&self, path: &Path) -> Result<(), ArchiveError> {
        match self.objects.delete(path).await {
            Err(error) if !matches!(error, Error::NotFound { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Deletes a file of a month that no manifest names.
    pub(crate) async fn delete_file(&self, table: &str, month: &str, name: &str) -> Result<(), ArchiveError> {
        self.delete(&self.folder(table, month).join(name)).await
    }

    /// The content of a file.
    pub(crate) async fn read(&self, manifest: &Manifest, file: &FileEntry) -> Result<Bytes, ArchiveError> {
        let path = self.folder(&manifest.table, &manifest.month()).join(file.name.as_str());
        match self.objects.get(&path).await {
            // Before it is read, because it is read into memory.
            Ok(found) if found.meta.size != file.bytes => {
                let problem = format!("it has {} bytes, and {} in the manifest", found.meta.size, file.bytes);
                Err(ArchiveError::damaged(path.as_ref(), problem))
            }
            Ok(found) => Ok(found.bytes().await?),
            Err(Error::NotFound { .. }) => Err(ArchiveError::damaged(path.as_ref(), "it is missing")),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(text: &str) -> Result<Archive, Box<dyn std::error::Error + Send + Sync>> {
    let url = Url::parse(text)?;
    let (objects, prefix): (Arc<dyn ObjectStore>, _) = match url.scheme() {
        "file" => {
            let folder = url.to_file_path().map_err(|()| "the path is not absolute")?;
            // Events are data of the users' customers.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            // A month is dropped after its copy is written, so the copy has to be on the disk.
            (Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)), Path::default())
        }
        "s3" => {
            let bucket = AmazonS3Builder::from_env().with_url(text).build()?;
            (Arc::new(bucket), Path::from_url_path(url.path())?)
        }
        scheme => return Err(format!("there are no archives of the kind {scheme}").into()),
    };
    Ok(Archive { objects, prefix })
}

fn parse(path: &Path, content: &[u8]) -> Result<Manifest, ArchiveError> {
    let damaged = |problem: String| ArchiveError::damaged(path.as_ref(), problem);
    let manifest: Manifest = serde_json::from_slice(content).map_err(|error| damaged(error.to_string()))?;
    if manifest.format != FORMAT {
        return Err(damaged(format!("its format is {}, and this version reads {FORMAT}", manifest.format)));
    }
    Ok(manifest)
}
