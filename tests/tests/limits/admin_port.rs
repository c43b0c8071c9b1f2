//! Connections of one peer to the port of probes and metrics.

use std::time::Duration;

use futures_util::future::join_all;
use pulse_tests::{Process, TestEnv};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

/// Less than the time-out of the kubelet's probes.
const PROBE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_peer_do_not_keep_out_probes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let address = api.admin.trim_start_matches("http://").parse()?;
    let connect = async || {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse()?)?;
        anyhow::Ok(socket.connect(address).await?)
    };
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        idle.push(connect().await?);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = tokio::time::timeout(PROBE, api.admin().get(path)).await??;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    // Connections beyond the limit are closed at once, long before the time-out of the others.
    let closed = join_all(idle.iter_mut().map(|stream| async move {
        let read = tokio::time::timeout(PROBE, stream.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }));
    assert_eq!(closed.await.into_iter().filter(|closed| *closed).count(), 200 - 32);
    Ok(())
}
