use pulse_store::StoreError;

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The URL is wrong, or its settings are.
    #[error("cannot use the archive {url}: expected file:///FOLDER or s3://BUCKET/PREFIX")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The folder or the store does not answer, or refuses.
    #[error("the archive does not answer")]
    Unavailable(#[from] object_store::Error),
    /// PostgreSQL does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be compressed.
    #[error("cannot compress")]
    Compression(#[from] std::io::Error),
    /// A file is not as it was written.
    #[error("{file} is damaged: {problem}")]
    Damaged {
        /// Its path in the archive.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// The folder of the month belongs to another instance.
    #[error("{month} in the archive is of the instance {owner}: give each instance another prefix")]
    OtherInstance {
        /// Table and month.
        month: String,
        /// The instance in its manifest.
        owner: String,
    },
    /// The archive has no such month.
    #[error("the archive has no {0}: see `pulse archive list`")]
    NoSuchMonth(String),
}

impl ArchiveError {
    pub(crate) fn damaged(file: &str, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), problem: problem.into() }
    }
}
