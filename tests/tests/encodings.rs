//! Content codings and media types of request bodies, against an API in a container.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use futures_util::future::try_join_all;
use http::Method;
use pulse_tests::{Client, MemoryCgroup, Process, Response, TestEnv};

const EVENTS: &str = "/api/v1/events";
const LIMIT: u64 = 512 * 1024 * 1024;
const EVENT: &[u8] = br#"{"event_name":"encoded","event_type":"t","payload":{"text":"encoded, encoded, encoded"}}"#;
/// [`EVENT`] and 64 MiB of spaces, in brotli.
const BROTLI_EVENT: &str = "1b5700801c077693cf5daeac48e39f5c2d9217b6b74558e0e834088b4e1f759cf8c068b57cb577bc1cf084078fe1f3\
                            494b72a82335fcc80537dab8eed4eab8742906fe4490c903";
const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f01108\
                           70500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bdffe3ffff\
                           1ffc1200715800a07bff37";

fn from_hex(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits = |at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?);
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// The content in each coding, with the name of the coding.
fn encoded(content: &[u8], brotli: &str) -> anyhow::Result<[(&'static str, Bytes); 5]> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(content)?;
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(content)?;
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
    deflate.write_all(content)?;
    let mut zstd = vec![0; zstd_safe::compress_bound(content.len())];
    let length = zstd_safe::compress(&mut zstd[..], content, 1).map_err(|_| anyhow::anyhow!("zstd fails"))?;
    zstd.truncate(length);
    Ok([
        ("gzip", gzip.finish()?.into()),
        ("deflate", zlib.finish()?.into()),
        ("deflate", deflate.finish()?.into()),
        ("br", from_hex(brotli)?.into()),
        ("zstd", zstd.into()),
    ])
}

async fn post(client: &Client, headers: &[(&str, &str)], body: &Bytes) -> anyhow::Result<Response> {
    client.send(Method::POST, EVENTS, headers, body.clone()).await
}

async fn assert_answer(
    client: &Client,
    headers: &[(&str, &str)],
    body: &Bytes,
    status: u16,
    code: &str,
) -> anyhow::Result<Response> {
    let answer = post(client, headers, body).await?;
    let got = (answer.status, answer.json["code"].as_str().unwrap_or_default());
    assert_eq!(got, (status, code), "{headers:?}: {}", answer.text);
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn body_of_each_coding_is_accepted_and_a_damaged_one_is_400() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    for (coding, body) in encoded(EVENT, BROTLI_EVENT)? {
        let headers = [("content-encoding", coding)];
        assert_answer(&client, &headers, &body, 202, "").await?;
        assert_answer(&client, &headers, &body.slice(..body.len() - 1), 400, "malformed_encoding").await?;
        assert_answer(&client, &headers, &[&body[..], b"x"].concat().into(), 400, "malformed_encoding").await?;
        assert_answer(&client, &headers, &Bytes::from_static(EVENT), 400, "malformed_encoding").await?;
    }
    let page = client.get(EVENTS).await?.json;
    let events = page["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(events.len(), 5, "{page}");
    assert!(events.iter().all(|event| event["payload"]["text"] == "encoded, encoded, encoded"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bomb_of_each_coding_is_413_and_is_never_in_memory() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let cgroup = MemoryCgroup::new(LIMIT)?;
    let mut api = Process::spawn_in(&cgroup, &env, "api", &[])?;
    api.wait_until_ready().await?;
    let before = cgroup.peak()?;
    let (clients, bombs) = (
        (0..10).map(|user| api.client(&format!("user {user}"))).collect::<Vec<_>>(),
        encoded(&vec![b' '; 64 << 20], BROTLI_BOMB)?,
    );
    let bombs = (0..100).map(|number| {
        let (client, (coding, body)) = (&clients[number % 10], &bombs[number % 5]);
        async move { assert_answer(client, &[("content-encoding", coding)], body, 413, "body_too_large").await }
    });
    try_join_all(bombs).await?;
    assert!(!api.has_ended()?, "the API was killed");
    let grown = cgroup.peak()? - before;
    assert!(grown < 100 * 1024 * 1024, "100 bombs of 64 MiB took {grown} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_codings_types_and_charsets_are_415_and_say_what_is_accepted() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (client, event) = (api.client("ada"), Bytes::from_static(EVENT));
    for headers in [
        &[("content-encoding", "compress")][..],
        &[("content-encoding", "gzip, gzip")],
        &[("content-encoding", "gzip"), ("content-encoding", "br")],
    ] {
        let answer = assert_answer(&client, headers, &event, 415, "unsupported_encoding").await?;
        assert_eq!(answer.headers["accept-encoding"], "gzip, deflate, br, zstd");
    }
    for headers in [
        &[("content-type", "application/json; charset=utf-16")][..],
        &[("content-type", "application/json"), ("content-type", "text/plain")],
    ] {
        assert_answer(&client, headers, &event, 415, "unsupported_media_type").await?;
    }
    for headers in [
        &[("content-type", "application/json; charset=\"UTF-8\"")][..],
        &[("content-type", "application/cloudevents+json;charset=utf-8")],
        &[("content-encoding", "identity")],
    ] {
        assert_answer(&client, headers, &event, 202, "").await?;
    }
    Ok(())
}
