//! Several Redis servers: a primary with replicas and Sentinels, or a Cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use redis::{Client, FromRedisValue};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::daemon;
use crate::env::TestEnv;
use crate::host::{free_port, send_signal};
use crate::python::run;
use crate::wait::eventually;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Time without an answer after which a node counts as down, in milliseconds.
const DOWN_AFTER: &str = "1000";

/// A Redis server. It is killed when this is dropped.
pub struct RedisNode {
    child: Option<Child>,
    host: String,
    folder: PathBuf,
    settings: Vec<String>,
    /// Its port.
    pub port: u16,
}

impl RedisNode {
    /// Starts a server on this address.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(env: &TestEnv, host: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let folder = env.file(&format!("redis-{port}"));
        std::fs::create_dir_all(&folder)?;
        let common =
            ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"];
        let settings = common.iter().chain(settings).map(|&setting| setting.to_owned()).collect();
        let mut node = Self { child: None, host: host.to_owned(), folder, settings, port };
        node.start_again(env).await?;
        Ok(node)
    }

    /// Starts it again after [`kill`](Self::kill), without data.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self, env: &TestEnv) -> anyhow::Result<()> {
        let (port, folder) = (self.port.to_string(), self.folder.display().to_string());
        let own = ["--port", &port, "--bind", &self.host, "--protected-mode", "no", "--dir", &folder];
        let args: Vec<&str> = own.into_iter().chain(self.settings.iter().map(String::as_str)).collect();
        self.child = Some(daemon::start_on(env, "redis-server", &[], &args, (&self.host, self.port)).await?);
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.take().context("the node runs")?.kill().await?)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.child.as_ref().and_then(Child::id), signal)
    }

    /// Runs a command, whose words are separated by spaces.
    ///
    /// # Errors
    /// If it fails.
    pub async fn command<T: FromRedisValue>(&self, words: &str) -> anyhow::Result<T> {
        let client = Client::open(format!("redis://{}:{}", self.host, self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        words.for_each(|word| {
            command.arg(word);
        });
        Ok(command.query_async(&mut connection).await?)
    }

    async fn is_primary(&self) -> bool {
        self.child.is_some()
            && self.command::<String>("INFO replication").await.is_ok_and(|info| info.contains("role:master"))
    }
}

/// A primary, two replicas and three Sentinels.
pub struct SentinelRedis {
    /// The servers; the first one is the primary at the start.
    pub nodes: Vec<RedisNode>,
    _sentinels: Vec<Child>,
    /// URL with all Sentinels.
    pub url: String,
}

impl SentinelRedis {
    /// Starts all on this address, and waits until the Sentinels know the replicas and each other.
    ///
    /// # Errors
    /// If one does not start.
    pub async fn start(env: &TestEnv, host: &str) -> anyhow::Result<Self> {
        let primary = RedisNode::start(env, host, &[]).await?;
        let port = primary.port.to_string();
        let mut nodes = vec![primary];
        for _ in 0..2 {
            nodes.push(RedisNode::start(env, host, &["--replicaof", host, &port]).await?);
        }
        let (mut sentinels, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let sentinel = free_port()?;
            let file = env.file(&format!("sentinel-{sentinel}.conf"));
            let settings = format!(
                "port {sentinel}\nbind {host}\nprotected-mode no\nsentinel monitor main {host} {port} 2\n\
                 sentinel down-after-milliseconds main {DOWN_AFTER}\nsentinel failover-timeout main 5000\n"
            );
            std::fs::write(&file, settings)?;
            let file = file.display().to_string();
            sentinels.push(daemon::start_on(env, "redis-server", &[], &[&file, "--sentinel"], (host, sentinel)).await?);
            ports.push(sentinel);
        }
        let first = Client::open(format!("redis://{host}:{}", ports[0]))?;
        eventually("the Sentinels know all", TIMEOUT, async || {
            let mut connection = first.get_multiplexed_async_connection().await?;
            let info: String = redis::cmd("INFO").arg("sentinel").query_async(&mut connection).await?;
            Ok(info.contains("status=ok") && info.contains("slaves=2,sentinels=3"))
        })
        .await?;
        let hosts: Vec<String> = ports.iter().map(|port| format!("{host}:{port}")).collect();
        let url = format!("redis+sentinel://{}/main", hosts.join(","));
        Ok(Self { nodes, _sentinels: sentinels, url })
    }

    /// Waits until another node than `former` is the primary, and returns it.
    ///
    /// # Errors
    /// If none is within a minute.
    pub async fn wait_for_failover(&self, former: usize) -> anyhow::Result<usize> {
        wait_for_primary(&self.nodes, async |index| Ok(index != former && self.nodes[index].is_primary().await)).await
    }
}

/// Three primaries with a replica each.
pub struct ClusterRedis {
    /// The nodes.
    pub nodes: Vec<RedisNode>,
    /// URL with all nodes.
    pub url: String,
}

impl ClusterRedis {
    /// Starts all on this address, and waits until they serve all slots.
    ///
    /// # Errors
    /// If one does not start.
    pub async fn start(env: &TestEnv, host: &str) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = free_port()?.to_string();
            let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", DOWN_AFTER, "--cluster-port", &bus];
            nodes.push(RedisNode::start(env, host, &settings).await?);
        }
        let hosts: Vec<String> = nodes.iter().map(|node| format!("{host}:{}", node.port)).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&hosts).args(["--cluster-replicas", "1", "--cluster-yes"]);
        run(&mut create).await?;
        let cluster = Self { url: format!("redis+cluster://{}", hosts.join(",")), nodes };
        eventually("the Cluster serves all slots", TIMEOUT, async || {
            for node in &cluster.nodes {
                let info: String = node.command("CLUSTER INFO").await?;
                if !info.contains("cluster_state:ok") || !info.contains("cluster_known_nodes:6") {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        Ok(cluster)
    }

    /// The node that has the slot of a key.
    ///
    /// # Errors
    /// If none has within a minute.
    pub async fn node_of(&self, key: &str) -> anyhow::Result<usize> {
        let has_slot = async |index: usize| {
            let node = &self.nodes[index];
            Ok(node.child.is_some() && node.command::<bool>(&format!("EXISTS {key}")).await.is_ok())
        };
        wait_for_primary(&self.nodes, has_slot).await
    }

    /// Moves the slot of a key to another primary with `redis-cli`, and returns that.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub async fn move_slot(&self, key: &str) -> anyhow::Result<usize> {
        let from = self.node_of(key).await?;
        let slot: u16 = self.nodes[from].command(&format!("CLUSTER KEYSLOT {key}")).await?;
        let mut target = None;
        for (index, node) in self.nodes.iter().enumerate() {
            if index != from && node.is_primary().await {
                target = Some(index);
            }
        }
        let target = target.context("another primary")?;
        let id = async |index: usize| self.nodes[index].command::<String>("CLUSTER MYID").await;
        let (from_id, target_id) = (id(from).await?, id(target).await?);
        self.nodes[target].command::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await?;
        self.nodes[from].command::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")).await?;
        loop {
            let keys: Vec<String> = self.nodes[from].command(&format!("CLUSTER GETKEYSINSLOT {slot} 1")).await?;
            let Some(key) = keys.first() else { break };
            let RedisNode { host, port, .. } = &self.nodes[target];
            self.nodes[from].command::<()>(&format!("MIGRATE {host} {port} {key} 0 5000")).await?;
            // A real move takes longer, and clients meet it half-way.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for index in [target, from] {
            self.nodes[index].command::<()>(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")).await?;
        }
        Ok(target)
    }
}

async fn wait_for_primary(
    nodes: &[RedisNode],
    is_it: impl AsyncFn(usize) -> anyhow::Result<bool>,
) -> anyhow::Result<usize> {
    let mut found = None;
    eventually("there is a primary", TIMEOUT, async || {
        for index in 0..nodes.len() {
            if is_it(index).await? {
                found = Some(index);
            }
        }
        Ok(found.is_some())
    })
    .await?;
    found.context("a primary")
}
