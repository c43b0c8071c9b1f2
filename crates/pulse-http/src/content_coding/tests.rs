//! Each coding: whole, damaged, cut, and larger than the limit.

use std::io::Write;

use super::*;

#[test]
fn coding_is_one_known_name() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().expect("a header"));
        }
        Coding::of(&headers).map_err(|problem| problem.code())
    };
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&["Identity"]), Ok(None));
    for (name, coding) in [
        (" GZIP ", Coding::Gzip),
        ("x-gzip", Coding::Gzip),
        ("deflate", Coding::Deflate),
        ("br", Coding::Brotli),
        ("zstd", Coding::Zstd),
    ] {
        assert_eq!(of(&[name]), Ok(Some(coding)), "{name}");
    }
    for bad in [&["gzip, gzip"][..], &["gzip", "gzip"], &["gzip", "identity"], &["compress"], &[""]] {
        assert_eq!(of(bad), Err(ProblemCode::UnsupportedEncoding), "{bad:?}");
    }
}

const EVENT: &[u8] = br#"{"event_name":"encoded","event_type":"t","payload":{"text":"encoded, encoded, encoded"}}"#;
/// [`EVENT`], and 64 MiB of spaces.
const BROTLI_EVENT: &str = "1b5700801c077693cf5daeac48e39f5c2d9217b6b74558e0e834088b4e1f759cf8c068b57cb577bc1cf084078f\
                            e1f3494b72a82335fcc80537dab8eed4eab8742906fe4490c903";
const BROTLI_BOMB: &str = "cbffff3ff82540e2b14020f7fe8fffff7ff04b00c4611180eefd1fffffffe0970088c30200ddfb3ffeffffc12f0\
                           110870500baf77ffcffff835f02200e0b0074effff8ffff07bf04401c1600e8defff1ffff0f7e0980382c00d0bd\
                           ffe3ffff1ffc1200715800a07bff37";
const LIMIT: usize = 100_000;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("encodes");
    encoder.finish().expect("encodes")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("encodes");
    encoder.finish().expect("encodes")
}

/// Without the checksum, only the last block shows where the stream ends.
fn raw_deflate(content: &[u8]) -> Vec<u8> {
    let zlib = zlib(content);
    zlib[2..zlib.len() - 4].to_vec()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut encoded = vec![0; zstd_safe::compress_bound(content.len())];
    let length = zstd_safe::compress(&mut encoded[..], content, 1).expect("encodes");
    encoded.truncate(length);
    encoded
}

/// The event in every format.
fn events() -> [(Coding, Vec<u8>); 5] {
    [
        (Coding::Gzip, gzip(EVENT)),
        (Coding::Deflate, zlib(EVENT)),
        (Coding::Deflate, raw_deflate(EVENT)),
        (Coding::Brotli, bytes(BROTLI_EVENT)),
        (Coding::Zstd, zstd(EVENT)),
    ]
}

async fn decoded(coding: Coding, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode(coding, body, LIMIT, |_| Ok(())).await
}

#[tokio::test]
async fn body_of_each_coding_is_decoded() {
    for (coding, body) in events() {
        assert_eq!(decoded(coding, &body).await.expect("decodes"), EVENT, "{coding:?}");
    }
}

#[tokio::test]
async fn body_that_is_cut_anywhere_is_malformed() {
    for (coding, body) in events() {
        for length in 0..body.len() {
            let result = decoded(coding, &body[..length]).await;
            assert!(matches!(result, Err(DecodeError::Malformed(_))), "{coding:?} {length}: {result:?}");
        }
    }
}

#[tokio::test]
async fn body_that_is_not_in_its_coding_or_continues_is_malformed() {
    for (coding, mut body) in events() {
        let result = decoded(coding, EVENT).await;
        assert!(matches!(result, Err(DecodeError::Malformed(_))), "{coding:?}: {result:?}");
        body.push(b'x');
        let result = decoded(coding, &body).await;
        assert!(matches!(result, Err(DecodeError::Malformed(_))), "{coding:?}: {result:?}");
    }
}

#[tokio::test]
async fn gzip_and_zstd_may_have_several_streams() {
    for (coding, body) in [(Coding::Gzip, gzip(EVENT)), (Coding::Zstd, zstd(EVENT))] {
        let twice = decoded(coding, &body.repeat(2)).await.expect("decodes");
        assert_eq!(twice, EVENT.repeat(2), "{coding:?}");
    }
}

#[tokio::test]
async fn bomb_is_decoded_up_to_the_limit() {
    let spaces = vec![b' '; 8 << 20];
    for (coding, body) in [
        (Coding::Gzip, gzip(&spaces)),
        (Coding::Deflate, zlib(&spaces)),
        (Coding::Deflate, raw_deflate(&spaces)),
        (Coding::Brotli, bytes(BROTLI_BOMB)),
        (Coding::Zstd, zstd(&spaces)),
    ] {
        let mut largest = 0;
        let result = decode(coding, &body, LIMIT, |bytes| {
            largest = bytes;
            Ok(())
        })
        .await;
        assert!(matches!(result, Err(DecodeError::TooLarge)), "{coding:?}: {result:?}");
        assert!(largest <= LIMIT, "{coding:?}: {largest}");
    }
    assert_eq!(decoded(Coding::Gzip, &gzip(&spaces[..LIMIT])).await.expect("fits").len(), LIMIT);
}

#[tokio::test]
async fn zstd_has_a_window_of_at_most_8_mib() {
    // A frame without a size, with a window of this exponent, and one last raw block of one byte.
    let frame = |log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 9, 0, 0, b'x'];
    assert_eq!(decoded(Coding::Zstd, &frame(23)).await.expect("decodes"), b"x");
    assert!(matches!(decoded(Coding::Zstd, &frame(24)).await, Err(DecodeError::Malformed(_))));
}
