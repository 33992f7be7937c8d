//! Bodies of requests, within their limits.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::AxonLimits;
use super::outcome::AxonOutcome;

/// Room that is set aside for a body before it arrives, in bytes.
const USUAL: u64 = 8 * 1024;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyProblem {
    TooLarge,
    Slow,
    Broken,
}

impl BodyProblem {
    pub(super) fn status(self) -> u16 {
        match self {
            BodyProblem::TooLarge => 413,
            BodyProblem::Slow => 408,
            BodyProblem::Broken => 400,
        }
    }
    pub(super) fn outcome(self) -> AxonOutcome {
        match self {
            BodyProblem::TooLarge => AxonOutcome::TooLarge,
            BodyProblem::Slow => AxonOutcome::SlowBody,
            BodyProblem::Broken => AxonOutcome::BrokenBody,
        }
    }
    pub(super) fn detail(self, limits: &AxonLimits) -> String {
        match self {
            BodyProblem::TooLarge => format!("the body exceeds {} bytes", limits.max_body_bytes),
            BodyProblem::Slow => format!("the body did not arrive within {:?}", limits.body_deadline),
            BodyProblem::Broken => "the body broke off".to_owned(),
        }
    }
}

/// Reads a body to its end.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    limits: &AxonLimits,
) -> Result<Vec<u8>, BodyProblem> {
    let stated = stated(headers);
    if stated.is_some_and(|length| length > limits.max_body_bytes as u64) {
        return Err(BodyProblem::TooLarge);
    }
    // What is stated is not yet sent: no more than a usual body is set aside for it.
    let mut body = Vec::with_capacity(stated.unwrap_or(0).min(USUAL) as usize);
    each_chunk(payload, limits, |chunk| body.extend_from_slice(&chunk)).await?;
    Ok(body)
}

/// Lets a small body arrive, so that a caller that is still sending hears the refusal: a socket that is closed on bytes
/// not read loses what was written to it. What is left of it, if it did not arrive to its end, is for [`respond`].
pub(super) async fn discard(headers: &HeaderMap, mut payload: Payload, limits: &AxonLimits) -> Option<Payload> {
    let small = stated(headers).is_none_or(|length| length <= limits.max_body_bytes as u64);
    let all = small && each_chunk(&mut payload, limits, drop).await.is_ok();
    (!all).then_some(payload)
}

fn stated(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok())
}

async fn each_chunk(
    payload: &mut Payload,
    limits: &AxonLimits,
    mut take: impl FnMut(Bytes),
) -> Result<(), BodyProblem> {
    let deadline = Instant::now() + limits.body_deadline;
    let mut length = 0;
    loop {
        let chunk = timeout_at(deadline, payload.next()).await.map_err(|_| BodyProblem::Slow)?;
        let Some(chunk) = chunk else { return Ok(()) };
        let chunk = chunk.map_err(|_| BodyProblem::Broken)?;
        length += chunk.len();
        if length > limits.max_body_bytes {
            return Err(BodyProblem::TooLarge);
        }
        take(chunk);
    }
}

/// A reply; `unread` is the request's body if it was not read to its end. Whatever answers before it has read the body
/// answers with this.
///
/// actix-http goes on reading a chunked body that was dropped, for as long as the peer cares to send one. While the
/// body is held it closes the connection after the reply instead, and what still arrives is read within limits.
pub(super) fn respond(mut response: HttpResponseBuilder, body: Vec<u8>, unread: Option<Payload>) -> HttpResponse {
    match unread {
        None => response.body(body),
        Some(payload) => {
            response.force_close();
            response.body(Unread { bytes: Some(Bytes::from(body)), _payload: payload })
        }
    }
}

struct Unread {
    bytes: Option<Bytes>,
    _payload: Payload,
}

impl MessageBody for Unread {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.get_mut().bytes.take().map(Ok))
    }
}
