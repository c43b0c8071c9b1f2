//! A network between a role and a server, which a test cuts.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// State of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Bytes pass.
    Up,
    /// Nothing passes, and connections stay open, as behind a switch that lost its port.
    Silent,
}

/// A port of 127.0.0.1 that leads to another one. It closes with this value.
pub struct Link {
    /// The port.
    pub port: u16,
    network: watch::Sender<Network>,
    target: watch::Sender<u16>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Opens a port that leads to `target`.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn to(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (network, state) = watch::channel(Network::Up);
        let (target, targets) = watch::channel(target);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, state, targets));
        Ok(Self { port, network, target, _tasks: tasks })
    }

    /// Cuts or restores the network.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Leads to another port, and closes the connections to the former one.
    pub fn lead_to(&self, target: u16) {
        self.target.send_replace(target);
    }
}

async fn accept(listener: TcpListener, network: watch::Receiver<Network>, target: watch::Receiver<u16>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connect(client, network.clone(), target.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(client: TcpStream, mut network: watch::Receiver<Network>, mut target: watch::Receiver<u16>) {
    if network.wait_for(|network| *network == Network::Up).await.is_err() {
        return;
    }
    let port = *target.borrow_and_update();
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = copy(from_client, to_server, network.clone()) => {}
        () = copy(from_server, to_client, network) => {}
        _ = target.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if network.wait_for(|network| *network == Network::Up).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
