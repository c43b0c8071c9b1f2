//! Clients that send slowly, or nothing.

use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::target::{Target, admin, token_until};
use crate::ADMIN;

/// More than the console waits for a head or a part of a body.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The connection of a client that stops in the middle is closed.
pub(super) async fn clients(target: &Target) -> anyhow::Result<()> {
    let cookie = format!("cookie: pulse_console={}\r\n", admin());
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let halves = [
        "GET / HTTP/1.1\r\nhost: a\r\nx: ".to_owned(),
        format!("POST /acts HTTP/1.1\r\nhost: a\r\n{cookie}{form}content-length: 100\r\n\r\ncsrf="),
        format!("POST /login HTTP/1.1\r\nhost: a\r\n{form}content-length: 100\r\n\r\ntoken="),
        format!(
            "POST /api/v1/admin/pause HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 9\r\n\r\n{{",
            admin()
        ),
    ];
    let mut streams = Vec::new();
    for half in &halves {
        let mut stream = target.console.connect().await?;
        stream.write_all(half.as_bytes()).await?;
        streams.push(stream);
    }
    for (half, mut stream) in halves.iter().zip(streams) {
        let mut answer = String::new();
        let end = tokio::time::timeout(TIMEOUT, stream.read_to_string(&mut answer)).await;
        end.with_context(|| format!("the connection stays: {half}"))??;
        let refused = answer.is_empty() || answer.contains(" 408 ");
        anyhow::ensure!(refused, "{half}: {answer}");
    }
    Ok(())
}

/// Live figures end with the token that opened them.
pub(super) async fn expired_stream(target: &Target) -> anyhow::Result<()> {
    let mut stream = target.console.connect().await?;
    let cookie = token_until("ops", ADMIN, 4);
    let request = format!(
        "GET /live/overview HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: pulse_console={cookie}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.context("the stream has no end")??;
    let answer = String::from_utf8_lossy(&answer);
    anyhow::ensure!(answer.contains(" 200 ") && answer.contains("data: "), "{answer}");
    Ok(())
}
