//! An answer that breaks off goes on where it broke, with a fresh URL if the old one has expired.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::client::{HttpError, HttpResponse};
use object_store::path::Path;

use super::{Fault, Granted};

/// Breaks in a row without a byte in between after which the caller is told.
const BREAKS: u32 = 5;

struct Body {
    from: Granted,
    location: Path,
    chunks: BoxStream<'static, Result<Bytes, HttpError>>,
    /// Bytes that have arrived, and that are to arrive.
    at: u64,
    end: u64,
    breaks: u32,
}

/// The bytes of a response to `GET`, `length` of them.
pub(super) fn resuming(
    from: Granted,
    location: Path,
    response: HttpResponse,
    length: u64,
) -> BoxStream<'static, object_store::Result<Bytes>> {
    let body = Body {
        from,
        chunks: response.into_body().bytes_stream(),
        location: location.clone(),
        at: 0,
        end: length,
        breaks: 0,
    };
    stream::try_unfold(body, Body::next)
        .map_err(move |fault: Fault| fault.at(location.as_ref()))
        .boxed()
}

impl Body {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Fault> {
        while self.at < self.end {
            let fault = match self.chunks.next().await {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    self.breaks = 0;
                    return Ok(Some((chunk, self)));
                }
                Some(Err(error)) => Fault::from(error),
                None => Fault::Broken,
            };
            self.breaks += 1;
            if self.breaks > BREAKS {
                return Err(fault);
            }
            let rest = self.from.open(&self.location, self.at).await?;
            self.chunks = rest.into_body().bytes_stream();
        }
        Ok(None)
    }
}
