//! TCP ports that connect pods to a test's PostgreSQL and Redis.
//!
//! Both servers listen on unix sockets only. For each of them, a forwarder listens on a port of the host's interface to
//! the node. A server that is restarted keeps its port.

use std::path::PathBuf;

use anyhow::Context;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::node::Node;
use crate::env::TestEnv;

/// Forwarders for a test's servers. They end when this is dropped.
pub struct DatastorePorts {
    /// URL of PostgreSQL for pods.
    pub database_url: String,
    /// URL of Redis for pods.
    pub redis_url: String,
    _tasks: JoinSet<()>,
}

impl DatastorePorts {
    /// Starts the forwarders for the servers of `env`.
    ///
    /// # Errors
    /// If no node runs.
    pub async fn open(env: &TestEnv) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let (_, folder) = env.database_url.split_once("host=").context("PostgreSQL has a socket")?;
        let postgres = forward(&mut tasks, PathBuf::from(folder).join(".s.PGSQL.5432")).await?;
        let socket = env.redis_url.strip_prefix("unix://").context("Redis has a socket")?;
        let redis = forward(&mut tasks, PathBuf::from(socket)).await?;
        let user = env.database_url.split_once("@").map_or("", |(before, _)| before);
        Ok(Self {
            database_url: format!("{user}@{postgres}/pulse"),
            redis_url: format!("redis://{redis}"),
            _tasks: tasks,
        })
    }
}

/// Starts a forwarder to `socket` and returns its address.
async fn forward(tasks: &mut JoinSet<()>, socket: PathBuf) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Node::HOST, 0)).await.context("a node runs")?;
    let address = listener.local_addr()?.to_string();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let socket = socket.clone();
            connections.spawn(async move {
                // If the server does not run, the connection is closed.
                if let Ok(mut to) = UnixStream::connect(&socket).await {
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(address)
}
