//! Content codings of request bodies (RFC 9110, section 8.4.1): gzip, deflate, br and zstd.
//!
//! A body is decoded after it has arrived, by one of few decoders, so a slow client never keeps the tables of a decoder
//! in memory. The content is counted while it is written: of a body that expands beyond the limit, no more is written.

use axum::http::{HeaderMap, HeaderValue, header};
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use tokio::sync::Semaphore;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// The codings, as in `Accept-Encoding`.
const ACCEPTED: &str = "gzip, deflate, br, zstd";
/// Bytes that are decoded or written at a time; then other requests have their turn.
const STEP: usize = 16 * 1024;
/// Base-2 logarithm of the largest window of zstd: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;
/// Decoders that work at the same time. Each takes up to 5 MB.
static DECODERS: Semaphore = Semaphore::const_new(4);

/// A content coding other than `identity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// Returns the coding of a body with these headers; `None` if it is sent as it is.
    ///
    /// # Errors
    /// 415 `unsupported_encoding` for another coding, and for more than one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(first) = values.next() else { return Ok(None) };
        let name = first.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match (name.as_str(), values.next()) {
            ("identity", None) => Ok(None),
            ("gzip" | "x-gzip", None) => Ok(Some(Self::Gzip)),
            ("deflate", None) => Ok(Some(Self::Deflate)),
            ("br", None) => Ok(Some(Self::Brotli)),
            ("zstd", None) => Ok(Some(Self::Zstd)),
            _ => {
                let accepted = (header::ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
                let detail =
                    format!("the content encoding is not supported: send the body as it is, or in one of {ACCEPTED}");
                Err(Problem::new(ProblemCode::UnsupportedEncoding, detail).with_headers([accepted]))
            }
        }
    }
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// The content is larger than the limit.
    TooLarge,
    /// The body is not in its coding; the text says why.
    Malformed(&'static str),
    /// What the caller said about the size of the content.
    Refused(Problem),
}

/// Returns the content of `body`, at most `limit` bytes. Calls `written` with the size of the content whenever it has
/// grown, and stops at an error of it.
pub(crate) async fn decode(
    coding: Coding,
    body: &[u8],
    limit: usize,
    mut written: impl FnMut(usize) -> Result<(), Problem>,
) -> Result<Vec<u8>, DecodeError> {
    let _decoder = DECODERS.acquire().await.expect("the semaphore is never closed");
    let mut decoder = Decoder::new(coding, body);
    let (mut body, mut content) = (body, Vec::new());
    loop {
        let start = content.len();
        // One byte more than the limit shows that there is more.
        content.resize(start + STEP.min(limit + 1 - start), 0);
        let input = &body[..body.len().min(STEP)];
        let step = decoder.step(input, &mut content[start..]).ok_or(DecodeError::Malformed("it is damaged"))?;
        content.truncate(start + step.written);
        body = &body[step.read..];
        if content.len() > limit {
            return Err(DecodeError::TooLarge);
        }
        written(content.len()).map_err(DecodeError::Refused)?;
        match (step.ended, coding) {
            (true, _) if body.is_empty() => return Ok(content),
            // These formats allow several streams, one after the other.
            (true, Coding::Gzip | Coding::Zstd) => decoder = Decoder::new(coding, body),
            (true, Coding::Deflate | Coding::Brotli) => {
                return Err(DecodeError::Malformed("it continues after its end"));
            }
            (false, _) if step.read == 0 && step.written == 0 => return Err(DecodeError::Malformed("it ends early")),
            (false, _) => {}
        }
        tokio::task::yield_now().await;
    }
}

enum Decoder {
    Deflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(DCtx<'static>),
}

/// What a decoder did.
struct Step {
    read: usize,
    written: usize,
    /// The stream is complete.
    ended: bool,
}

impl Decoder {
    fn new(coding: Coding, body: &[u8]) -> Self {
        // `deflate` is the format of zlib, whose first byte ends with 8. Some clients send it without that wrapper, and
        // browsers accept both.
        let is_zlib = body.first().is_some_and(|byte| byte & 0x0f == 8);
        match coding {
            Coding::Gzip => Self::Deflate(Decompress::new_gzip(15)),
            Coding::Deflate => Self::Deflate(Decompress::new(is_zlib)),
            Coding::Brotli => {
                let alloc = StandardAlloc::default;
                // Strict: without the windows of up to 1 GiB that are not part of the format.
                Self::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Zstd => {
                let mut context = DCtx::create();
                let limited = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG));
                limited.expect("the window is in the range that zstd allows");
                Self::Zstd(context)
            }
        }
    }

    /// Decodes a part of `input` into a part of `output`. Returns `None` if `input` is damaged.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Option<Step> {
        match self {
            Self::Deflate(decoder) => {
                let before = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, output, FlushDecompress::None).ok()?;
                let read = usize::try_from(decoder.total_in() - before.0).ok()?;
                let written = usize::try_from(decoder.total_out() - before.1).ok()?;
                Some(Step { read, written, ended: status == Status::StreamEnd })
            }
            Self::Brotli(state) => {
                let (mut in_left, mut read, mut out_left, mut written, mut total) =
                    (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut in_left,
                    &mut read,
                    input,
                    &mut out_left,
                    &mut written,
                    output,
                    &mut total,
                    state,
                );
                let ended = matches!(result, BrotliResult::ResultSuccess);
                (!matches!(result, BrotliResult::ResultFailure)).then_some(Step { read, written, ended })
            }
            Self::Zstd(context) => {
                let (mut input, mut output) = (InBuffer::around(input), OutBuffer::around(output));
                let hint = context.decompress_stream(&mut output, &mut input).ok()?;
                Some(Step { read: input.pos(), written: output.pos(), ended: hint == 0 })
            }
        }
    }
}

#[cfg(test)]
mod tests;
