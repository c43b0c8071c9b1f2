//! A test's PostgreSQL and Redis, at addresses that pods reach.
//!
//! Both listen on unix sockets alone. Each gets a port at the host's end of the node's wire, and who connects there is
//! passed on. A server that ends and starts again keeps its port.

use std::path::PathBuf;

use anyhow::Context;
use tokio::net::{TcpListener, UnixStream};
use tokio::task::JoinSet;

use super::node::Node;
use crate::TestEnv;

/// Where pods find a test's servers, for as long as this is kept.
pub struct Reach {
    /// PostgreSQL.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    _tasks: JoinSet<()>,
}

impl Reach {
    /// Makes a world's servers reachable for the node's pods.
    ///
    /// # Errors
    /// If there is no node.
    pub async fn open(world: &TestEnv) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let (_, folder) = world.database_url.split_once("host=").context("PostgreSQL has a socket")?;
        let postgres = forward(&mut tasks, PathBuf::from(folder).join(".s.PGSQL.5432")).await?;
        let socket = world.redis_url.strip_prefix("unix://").context("Redis has a socket")?;
        let redis = forward(&mut tasks, PathBuf::from(socket)).await?;
        let user = world.database_url.split_once("@").map_or("", |(before, _)| before);
        Ok(Self {
            database_url: format!("{user}@{postgres}/pulse"),
            redis_url: format!("redis://{redis}"),
            _tasks: tasks,
        })
    }
}

/// Listens for pods; returns the address.
async fn forward(tasks: &mut JoinSet<()>, socket: PathBuf) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Node::HOST, 0)).await.context("a node runs")?;
    let address = listener.local_addr()?.to_string();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let socket = socket.clone();
            connections.spawn(async move {
                // A server that is away is a connection that closes.
                if let Ok(mut to) = UnixStream::connect(&socket).await {
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(address)
}
