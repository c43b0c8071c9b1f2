//! The ledger: the body of each 202, one line each, synced to disk before the request counts as accepted. Tests compare
//! it with the database.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Maximum number of lines per sync.
const MAX_LINES_PER_SYNC: usize = 1024;

/// The sender of the writer's queue; `None` if no ledger is written. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger(Option<mpsc::Sender<(Bytes, oneshot::Sender<()>)>>);

impl Ledger {
    /// Opens the file for appending. The returned task writes it and ends when the last clone of the ledger is dropped.
    pub(super) fn open(path: Option<PathBuf>) -> anyhow::Result<(Self, JoinHandle<anyhow::Result<()>>)> {
        let Some(path) = path else { return Ok((Self(None), tokio::spawn(async { Ok(()) }))) };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open the ledger {}", path.display()))?;
        let (lines, receiver) = mpsc::channel(MAX_LINES_PER_SYNC);
        Ok((Self(Some(lines)), tokio::task::spawn_blocking(move || write(file, receiver))))
    }

    /// Appends a line; returns when it is synced to disk.
    pub(super) async fn record(&self, line: Bytes) {
        let Some(lines) = &self.0 else { return };
        let (written, on_disk) = oneshot::channel();
        if lines.send((line, written)).await.is_ok() {
            // An error means that the writer failed. Its task returns the cause.
            let _ = on_disk.await;
        }
    }
}

fn write(mut file: File, mut receiver: mpsc::Receiver<(Bytes, oneshot::Sender<()>)>) -> anyhow::Result<()> {
    let mut group = Vec::with_capacity(MAX_LINES_PER_SYNC);
    while receiver.blocking_recv_many(&mut group, MAX_LINES_PER_SYNC) > 0 {
        let mut text = Vec::new();
        for (line, _) in &group {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        file.write_all(&text).and_then(|()| file.sync_data()).context("cannot write the ledger")?;
        for (_, written) in group.drain(..) {
            let _ = written.send(());
        }
    }
    Ok(())
}
