//! What was promised: the body of every 202, one line each, synced to disk before it counts.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Lines of one sync.
const GROUP: usize = 1024;

/// Where promises are written; nowhere, if nobody asked for it. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger(Option<mpsc::Sender<(Bytes, oneshot::Sender<()>)>>);

impl Ledger {
    /// Opens the file for appending; the handle ends when the last clone is dropped.
    pub(super) fn open(path: Option<PathBuf>) -> anyhow::Result<(Self, JoinHandle<anyhow::Result<()>>)> {
        let Some(path) = path else { return Ok((Self(None), tokio::spawn(async { Ok(()) }))) };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("failed to open the ledger {}", path.display()))?;
        let (lines, receiver) = mpsc::channel(GROUP);
        Ok((Self(Some(lines)), tokio::task::spawn_blocking(move || write(file, receiver))))
    }

    /// Returns once the line is on disk.
    pub(super) async fn record(&self, line: Bytes) {
        let Some(lines) = &self.0 else { return };
        let (written, on_disk) = oneshot::channel();
        if lines.send((line, written)).await.is_ok() {
            // An error is the writer's, and told at the end.
            let _ = on_disk.await;
        }
    }
}

fn write(mut file: File, mut receiver: mpsc::Receiver<(Bytes, oneshot::Sender<()>)>) -> anyhow::Result<()> {
    let mut group = Vec::with_capacity(GROUP);
    while receiver.blocking_recv_many(&mut group, GROUP) > 0 {
        let mut text = Vec::new();
        for (line, _) in &group {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        file.write_all(&text).and_then(|()| file.sync_data()).context("failed to write the ledger")?;
        for (_, written) in group.drain(..) {
            let _ = written.send(());
        }
    }
    Ok(())
}
