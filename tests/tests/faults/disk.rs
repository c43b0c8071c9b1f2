//! A PostgreSQL whose disk is full. Requires root, to mount a small file system.

use std::path::{Path, PathBuf};

use pulse_tests::{Process, TestEnv, eventually, run};
use tokio::process::Command;

use crate::{Loaded, TIMEOUT};

/// A file system of this size, in MiB.
const SIZE: u32 = 400;

/// A small file system with the data of PostgreSQL. It is detached when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Moves the data of a stopped PostgreSQL to it.
    async fn mount_over(data: &Path) -> anyhow::Result<Self> {
        let full_size = data.with_extension("full-size");
        std::fs::rename(data, &full_size)?;
        std::fs::create_dir(data)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={SIZE}m"), "tmpfs"]).arg(data)).await?;
        let disk = Self(data.to_owned());
        run(Command::new("cp").arg("-aT").args([&full_size, data])).await?;
        std::fs::remove_dir_all(full_size)?;
        Ok(disk)
    }

    /// Leaves no space.
    fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = std::fs::File::create(self.ballast())?;
        let filled = std::io::copy(&mut std::io::repeat(0), &mut ballast);
        anyhow::ensure!(filled.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull), "it is not full");
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_of_postgresql_is_answered_503_until_there_is_space() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    env.crash_postgres().await?;
    let disk = SmallDisk::mount_over(&env.file("postgres/data")).await?;
    env.start_postgres().await?;
    let [api, worker, _scheduler] = Process::start_all(&env).await?;
    let loaded = Loaded::start(&env, &api, 300, 20).await?;
    disk.fill()?;
    let event = serde_json::json!({ "event_name": "page_view", "event_type": "t" });
    let mut refused = 0;
    eventually("posts are refused", TIMEOUT, async || {
        let answer = api.client("ada").post("/api/v1/events", &event).await?;
        let has_time = answer.headers.contains_key("retry-after");
        anyhow::ensure!(answer.status == 202 || (answer.status == 503 && has_time), "{}", answer.text);
        refused += u32::from(answer.status == 503);
        Ok(refused == 20)
    })
    .await?;
    disk.free()?;
    let freed = std::time::Instant::now();
    // It may have stopped itself, as it does if there is no space for its log.
    if env.number("SELECT 1::bigint").await.is_err() {
        println!("PostgreSQL has stopped itself");
        let _ = env.crash_postgres().await;
        env.start_postgres().await?;
    }
    let accepts = async || Ok(api.client("ada").post("/api/v1/events", &event).await?.status == 202);
    eventually("events are accepted", TIMEOUT, accepts).await?;
    println!("accepted {:.1?} after there was space", freed.elapsed());
    loaded.finish(&env).await?;
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks").await?, 0, "the disk is no fault of a task");
    assert_eq!(worker.metric("pulse_tasks_settled_total{outcome=\"retried\"}").await?, 0.0);
    Ok(())
}
