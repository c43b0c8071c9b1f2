//! A private S3 server on a folder: versitygw.

use std::path::PathBuf;

use tokio::process::Child;

use crate::cluster::storage_program;
use crate::daemon;
use crate::env::TestEnv;
use crate::host::free_port;

/// A running S3 server with an empty bucket. It is killed when this is dropped.
pub struct S3 {
    _child: Child,
    /// The bucket, with a prefix.
    pub url: String,
    /// Folder with the objects of the bucket.
    pub folder: PathBuf,
    port: u16,
}

impl S3 {
    /// Starts the server, and waits until it accepts connections.
    ///
    /// # Errors
    /// If it cannot be built, or does not start within 20 s.
    pub async fn start(env: &TestEnv) -> anyhow::Result<Self> {
        let (root, metadata) = (env.file("s3"), env.file("metadata-of-objects"));
        std::fs::create_dir_all(root.join("bucket"))?;
        std::fs::create_dir_all(&metadata)?;
        let (port, program) = (free_port()?, storage_program("versitygw").await?);
        let listen = format!("127.0.0.1:{port}");
        let paths = [&program, &root, &metadata].map(|path| path.display().to_string());
        let [program, root_path, metadata] = &paths;
        let keys = ["--access", KEY, "--secret", KEY, "--quiet", "--port", &listen];
        let args = [&keys[..], &["posix", "--sidecar", metadata, root_path]].concat();
        let child = daemon::start(env, program, &[], &args, port).await?;
        Ok(Self { _child: child, url: "s3://bucket/pulse".into(), folder: root.join("bucket"), port })
    }

    /// The environment variables of its clients.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", KEY.into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
        ]
    }
}

const KEY: &str = "pulse-test";
