//! Counts, order and shares of the two streams.

use std::collections::BTreeSet;
use std::time::Duration;

use pulse_queue::{DEEP, Hosts, SnapshotReader};
use uuid::Uuid;

use crate::env::{QueueEnv, entry, read, task_ids};

const ADA: i64 = 1;
const BOB: i64 = 2;

#[tokio::test]
async fn entries_are_counted_exactly_by_user() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut consumer = env.consumer("a");
    env.enqueue(ADA, DEEP + 500).await?;
    env.enqueue(BOB, 3).await?;
    assert_eq!(env.counts().await?, [(ADA, 1500), (BOB, 3)].into());
    assert_eq!(env.deep_users().await?, [ADA].into());

    let first = read(&mut consumer, 1100).await?;
    assert_eq!(env.counts().await?.values().sum::<i64>(), 1503, "a delivery removes nothing");
    env.acknowledge(&first[..700]).await?;
    // Acknowledged before, and twice in one call.
    env.acknowledge(&[&first[600..800], &first[600..800]].concat()).await?;
    assert_eq!(env.counts().await?.values().sum::<i64>(), 703);
    assert_eq!(env.deep_users().await?, [ADA].into(), "deep until no entry is left");
    assert_eq!(env.enqueue(ADA, 1).await?.len(), 1);
    assert_eq!(env.command::<u64>(&["XLEN", "pulse:{test}:bulk"]).await?, 501);

    // The consumer dies with 300 deliveries.
    let reaped = env.queue.reap(Duration::ZERO, Duration::from_secs(300)).await?;
    assert_eq!(reaped.entries, 300);
    assert_eq!(env.counts().await?.values().sum::<i64>(), 404);
    let rest = read(&mut env.consumer("b"), 1000).await?;
    env.acknowledge(&rest).await?;
    assert_eq!(env.counts().await?, [].into());
    assert_eq!(env.deep_users().await?, [].into());
    env.enqueue(ADA, 1).await?;
    assert_eq!(env.command::<u64>(&["XLEN", "pulse:{test}:tasks"]).await?, 1, "no longer deep");
    Ok(())
}

#[tokio::test]
async fn lost_data_starts_the_counts_again() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut consumer = env.consumer("a");
    env.enqueue(ADA, DEEP + 1).await?;
    let delivered = read(&mut consumer, 10).await?;
    env.command::<()>(&["FLUSHALL"]).await?;
    env.command::<()>(&["SCRIPT", "FLUSH"]).await?;
    env.acknowledge(&delivered).await?;
    let tasks = env.enqueue(ADA, 2).await?;
    assert_eq!(env.counts().await?, [(ADA, 2)].into());
    assert_eq!(read(&mut consumer, 10).await?, [], "creates the groups");
    assert_eq!(task_ids(&read(&mut consumer, 10).await?), tasks);

    // A stream that was deleted alone.
    env.enqueue(ADA, DEEP).await?;
    env.command::<()>(&["DEL", "pulse:{test}:tasks"]).await?;
    let left = loop {
        let deliveries = read(&mut consumer, 10).await?;
        if !deliveries.is_empty() {
            break deliveries;
        }
    };
    env.acknowledge(&left).await?;
    assert_eq!(env.counts().await?, [].into());
    assert_eq!(env.deep_users().await?, [].into());
    Ok(())
}

#[tokio::test]
async fn deliveries_before_a_missing_group_are_read_again() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut consumer = env.consumer("a");
    assert_eq!(read(&mut consumer, 10).await?, []);
    let tasks = env.enqueue(ADA, 2).await?;
    env.command::<()>(&["DEL", "pulse:{test}:bulk"]).await?;
    assert_eq!(read(&mut consumer, 10).await?, []);
    assert_eq!(task_ids(&read(&mut consumer, 10).await?), tasks);
    Ok(())
}

#[tokio::test]
async fn full_redis_refuses_entries_as_a_whole_and_lets_them_be_removed() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut consumer = env.consumer("a");
    env.enqueue(ADA, 20).await?;
    let delivered = read(&mut consumer, 5).await?;
    env.command::<()>(&["CONFIG", "SET", "maxmemory", "1kb"]).await?;
    assert!(env.queue.publish(&[entry(ADA), entry(BOB)]).await.is_err());
    assert_eq!(env.counts().await?, [(ADA, 20)].into());
    env.acknowledge(&delivered).await?;
    assert_eq!(env.counts().await?, [(ADA, 15)].into());
    assert_eq!(read(&mut consumer, 20).await?.len(), 15);
    env.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    env.enqueue(BOB, 1).await?;
    assert_eq!(env.counts().await?, [(ADA, 15), (BOB, 1)].into());
    Ok(())
}

#[tokio::test]
async fn user_tasks_are_delivered_in_order_across_the_threshold() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let (mut consumer, mut ada) = (env.consumer("a"), Vec::new());
    // Ada becomes deep while many users wait before and after her.
    for user in 100..140 {
        env.enqueue(user, 100).await?;
        ada.extend(env.enqueue(ADA, 60).await?);
    }
    let mut delivered = Vec::new();
    for size in [1, 7, 8, 64, 256].into_iter().cycle() {
        let deliveries = read(&mut consumer, size).await?;
        assert!(deliveries.len() <= size);
        if deliveries.is_empty() {
            break;
        }
        delivered.extend(task_ids(&deliveries));
        env.acknowledge(&deliveries).await?;
        if ada.len() < 2500 {
            // Still deep, and among tasks of others.
            ada.extend(env.enqueue(ADA, 1).await?);
            env.enqueue(BOB, 1).await?;
        }
    }
    let known: BTreeSet<&Uuid> = ada.iter().collect();
    delivered.retain(|task| known.contains(task));
    assert_eq!(delivered, ada);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn task_behind_300_000_of_another_user_is_delivered_in_the_next_read() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut workers = [env.consumer("a"), env.consumer("b")];
    env.enqueue(ADA, 300_000).await?;
    let mut reads = 0;
    while env.queue.delivered().await?.tasks.undelivered() > 0 {
        read(&mut workers[reads % 2], 256).await?;
        reads += 1;
    }
    assert!(reads <= 5, "{reads} reads for {DEEP} tasks of Ada before Bob's");
    for worker in &mut workers {
        let task = env.enqueue(BOB, 1).await?;
        let deliveries = read(worker, 16).await?;
        assert!(task_ids(&deliveries).contains(&task[0]));
        assert_eq!(deliveries.len(), 16, "and tasks of Ada in the other places");
    }
    Ok(())
}

#[tokio::test]
async fn bulk_stream_gets_one_place_of_eight_while_the_other_is_full() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    let mut workers = [env.consumer("a"), env.consumer("b")];
    let ada: BTreeSet<Uuid> = env.enqueue(ADA, DEEP + 2000).await?.into_iter().collect();
    while env.queue.delivered().await?.tasks.undelivered() > 0 {
        read(&mut workers[0], 100).await?;
    }
    for user in 100..110 {
        env.enqueue(user, 400).await?;
    }
    for size in [1, 3, 16] {
        let (mut of_ada, mut all) = (0, 0);
        for turn in 0..160 / size {
            let deliveries = read(&mut workers[turn % 2], size).await?;
            all += deliveries.len();
            of_ada += deliveries.iter().filter(|delivery| ada.contains(&delivery.task_id)).count();
        }
        assert!(of_ada.abs_diff(all / 8) <= 2, "{of_ada} of {all} deliveries");
    }
    Ok(())
}

#[tokio::test]
async fn depth_is_the_sum_of_both_streams() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    env.enqueue(ADA, DEEP + 50).await?;
    read(&mut env.consumer("pod.a"), DEEP + 20).await?;
    let depth = env.queue.depth().await?;
    assert_eq!((depth.length, depth.in_flight, depth.undelivered()), (1050, 1020, 30));
    let snapshots = SnapshotReader::new(&env.url, None, None, Hosts::default(), "test")?
        .read(&["test".into(), "other".into()])
        .await?;
    let depth = snapshots[0].depth.as_ref().expect("Redis answers");
    assert_eq!((depth.length, depth.in_flight), (1050, 1020));
    assert_eq!(snapshots[0].consumers, [("pod.a".to_owned(), 1000), ("pod.a".to_owned(), 20)]);
    assert_eq!(snapshots[1].depth.as_ref().map(|depth| depth.length), Ok(0));
    assert_eq!(env.queue.purge().await?, 4);
    assert_eq!(env.command::<Vec<String>>(&["KEYS", "*"]).await?, [] as [String; 0]);
    Ok(())
}

#[tokio::test]
async fn silent_consumer_is_removed_from_both_streams() -> anyhow::Result<()> {
    let env = QueueEnv::start().await?;
    env.consumer("a").read(1, Duration::from_millis(1)).await?;
    let reaped = env.queue.reap(Duration::from_secs(60), Duration::from_secs(60)).await?;
    assert_eq!(reaped.consumers, 0);
    tokio::time::timeout(Duration::from_secs(10), async {
        while env.queue.reap(Duration::from_secs(60), Duration::ZERO).await?.consumers == 0 {}
        anyhow::Ok(())
    })
    .await??;
    assert_eq!(env.queue.reap(Duration::from_secs(60), Duration::ZERO).await?.consumers, 0);
    Ok(())
}
