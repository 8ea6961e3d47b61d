//! The way out: sealed bytes are read, opened in place and handed on, a run of chunks at a time,
//! with the next run read while the current one is sent.
//!
//! A chunk leaves only after its tag was checked. Damage in the first run is an error before the
//! answer begins; later damage cuts the connection, so a client sees a short read, never a wrong
//! byte.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use moat_blob::{BlobReader, BlobStore, ReadBytes};
use moat_crypto::{BlobLayout, Dek, Run, open_run};
use moat_meta::MetaStore;
use moat_types::BlobId;
use tokio::task::JoinHandle;

use crate::Store;
use crate::collector::Pinned;
use crate::error::{Error, Result};
use crate::objects::{OpenObject, internal};
use crate::rows::{Body, Damaged, ManifestRow, Segment, keys};

/// Chunks read and opened at once: 1 MiB of plaintext.
const RUN_CHUNKS: u64 = 16;

/// Some bytes of one blob, with the key that opens it.
pub(crate) struct Piece {
    pub(crate) dek: Dek,
    pub(crate) blob: BlobId,
    pub(crate) inline: bool,
    pub(crate) layout: BlobLayout,
    /// Plaintext range of the blob.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// The pieces that hold plaintext bytes `start..end` of an object.
    pub(crate) async fn pieces(
        &self,
        object: &OpenObject,
        start: u64,
        end: u64,
    ) -> Result<VecDeque<Piece>> {
        if start >= end {
            return Ok(VecDeque::new());
        }
        match object.row.body {
            Body::Empty => Err(Damaged("an object with a size has no body").into()),
            Body::Blob { id, inline } => Ok(VecDeque::from([Piece {
                dek: object.dek.clone(),
                blob: id,
                inline,
                layout: BlobLayout::new(object.row.entry.size),
                start,
                end,
            }])),
            Body::Manifest { id } => {
                let segments = self.manifest(id, object).await?;
                slice(&segments, start, end)?
                    .into_iter()
                    .map(|segment| {
                        Ok(Piece {
                            dek: object.dek.unwrap_part(&segment.wrapped, segment.blob)?,
                            blob: segment.blob,
                            inline: segment.inline,
                            layout: BlobLayout::new(segment.blob_bytes),
                            start: segment.offset,
                            end: segment.offset + segment.length,
                        })
                    })
                    .collect()
            }
        }
    }

    /// The segments of an object that has a manifest.
    pub(crate) async fn manifest(&self, id: BlobId, object: &OpenObject) -> Result<Vec<Segment>> {
        let row = self.meta.get(&keys::inline_blob(id)).await?;
        let row = ManifestRow::decode(&row.ok_or(Damaged("the manifest is missing"))?)?;
        let segments = row
            .open(id, &object.dek.attributes_key())
            .map_err(|damaged| damaged.unwrap_or(Damaged("the manifest does not open")))?;
        let size: u64 = segments.iter().map(|segment| segment.length).sum();
        if size != object.row.entry.size {
            return Err(Damaged("the manifest is not as long as the object").into());
        }
        Ok(segments)
    }

    /// Starts to read. The first run is opened before this returns.
    /// `body` is pinned, so that what a deleted object refers to stays until it is read.
    pub(crate) async fn read(
        self: &Arc<Self>,
        body: Body,
        pieces: VecDeque<Piece>,
    ) -> Result<Source<M, B>> {
        let length = pieces.iter().map(|piece| piece.end - piece.start).sum();
        let mut source = Source {
            _pin: self.pins.pin(body.id()),
            cursor: Some(Cursor {
                store: Arc::clone(self),
                pieces,
                reader: None,
            }),
            ready: VecDeque::new(),
            reading: None,
            remaining: length,
        };
        if length > 0 {
            let cursor = source.cursor.take().expect("it was just put there");
            let (cursor, ready) = cursor.next_run().await?;
            source.take_in(cursor, ready);
        }
        Ok(source)
    }
}

/// The segments that hold bytes `start..end`, cut to fit.
pub(crate) fn slice(segments: &[Segment], start: u64, end: u64) -> Result<Vec<Segment>> {
    let mut at = 0;
    let mut out = Vec::new();
    for segment in segments {
        let (from, to) = (start.max(at), end.min(at + segment.length));
        if from < to {
            if segment.offset + segment.length > segment.blob_bytes {
                return Err(Damaged("a segment reaches beyond its blob").into());
            }
            out.push(Segment {
                offset: segment.offset + (from - at),
                length: to - from,
                ..segment.clone()
            });
        }
        at += segment.length;
    }
    Ok(out)
}

/// Where the reading stands.
struct Cursor<M, B: BlobStore> {
    store: Arc<Store<M, B>>,
    pieces: VecDeque<Piece>,
    /// The open blob of the first piece.
    reader: Option<B::Reader>,
}

impl<M: MetaStore, B: BlobStore> Cursor<M, B> {
    /// Reads and opens the next run of the first piece.
    async fn next_run(mut self) -> Result<(Self, VecDeque<Bytes>)> {
        let piece = self
            .pieces
            .front_mut()
            .ok_or_else(|| internal("read past the end"))?;
        let run = piece.layout.run(piece.start, piece.end, RUN_CHUNKS);
        let mut sealed = if piece.inline {
            self.store.read_inline(piece, &run).await?
        } else {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => self.reader.insert(self.store.blobs.open(piece.blob).await?),
            };
            reader.read(run.sealed.clone()).await?
        };
        let mut ranges = Vec::with_capacity(RUN_CHUNKS as usize);
        open_run(
            &piece.dek,
            piece.blob,
            piece.layout,
            &run,
            &mut sealed,
            |range| {
                ranges.push(range);
            },
        )?;
        let sealed = Bytes::from_owner(sealed);
        let ready: VecDeque<Bytes> = ranges
            .into_iter()
            .map(|range| sealed.slice(range))
            .collect();
        piece.start += ready.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        if piece.start >= piece.end {
            self.pieces.pop_front();
            self.reader = None;
        }
        Ok((self, ready))
    }
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    async fn read_inline(&self, piece: &Piece, run: &Run) -> Result<ReadBytes> {
        let row = self.meta.get(&keys::inline_blob(piece.blob)).await?;
        let row = row.ok_or(moat_blob::Error::NotFound(piece.blob))?;
        let range = run.sealed.start as usize..run.sealed.end as usize;
        let found = row.len() as u64;
        let short = moat_blob::Error::Short {
            id: piece.blob,
            found,
            wanted: run.sealed.end,
        };
        Ok(row.get(range).ok_or(short)?.to_vec().into())
    }
}

type NextRun<M, B> = Owned<Result<(Cursor<M, B>, VecDeque<Bytes>)>>;

/// The body of an answer.
pub(crate) struct Source<M, B: BlobStore> {
    cursor: Option<Cursor<M, B>>,
    ready: VecDeque<Bytes>,
    reading: Option<NextRun<M, B>>,
    /// Plaintext bytes not handed on yet.
    remaining: u64,
    _pin: Pinned,
}

impl<M: MetaStore, B: BlobStore> Source<M, B> {
    fn take_in(&mut self, cursor: Cursor<M, B>, ready: VecDeque<Bytes>) {
        self.ready = ready;
        if cursor.pieces.is_empty() {
            self.cursor = None;
        } else {
            self.reading = Some(Owned(tokio::spawn(cursor.next_run())));
        }
    }
}

/// A task that ends with its owner.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<M, B: BlobStore> Unpin for Source<M, B> {}

impl<M: MetaStore, B: BlobStore> HttpBody for Source<M, B> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, std::io::Error>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.remaining -= bytes.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(reading) = &mut self.reading else {
                return Poll::Ready(None);
            };
            let next = ready!(Pin::new(&mut reading.0).poll(context));
            self.reading = None;
            match next.map_err(internal).and_then(|next| next) {
                Ok((cursor, ready)) => self.take_in(cursor, ready),
                Err(error) => return Poll::Ready(Some(Err(cut(&error)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// The answer has begun, so all that is left is to end the connection.
fn cut(error: &Error) -> std::io::Error {
    tracing::error!(code = %error.code(), cause = %error.cause, "an answer was cut short");
    std::io::Error::other("the object could not be read to its end")
}
