//! Engines that fail or wait on demand, for tests of the layers above.
//!
//! A [`Faults`] handle says what the next calls do; the wrapper asks it before each call. Nothing
//! here depends on time: a held call waits until the test lets it go.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use moat_blob::{BlobReader, BlobStore, BlobWriter, ReadBytes};
use moat_meta::{Check, MetaStore, Outcome, Page, Write};
use moat_types::BlobId;
use tokio::sync::{Notify, oneshot};

/// A call that can be made to fail or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `MetaStore::get`.
    Get,
    /// `MetaStore::scan` and `last`.
    Scan,
    /// `MetaStore::commit`.
    Commit,
    /// `BlobStore::create`.
    Create,
    /// `BlobWriter::append`.
    Append,
    /// `BlobWriter::finish`.
    Finish,
    /// `BlobStore::open`.
    Open,
    /// `BlobReader::read`.
    Read,
    /// `BlobStore::delete`.
    Delete,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Fault {
    /// The disk is full; the call does nothing.
    NoSpace,
    /// An I/O error; the call does nothing.
    Io,
    /// The call is carried out, and its success is then reported as an I/O error: for commits
    /// whose outcome is not known.
    IoAfter,
    /// The call waits until the sender is used or dropped, and then goes on as usual.
    Hold(oneshot::Receiver<()>),
}

/// Faults that were ordered and have not happened yet. Clones share them.
#[derive(Clone, Default)]
pub struct Faults {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<VecDeque<Order>>,
    happened: Mutex<usize>,
    changed: Notify,
}

struct Order {
    call: Call,
    skip: usize,
    fault: Fault,
}

impl Faults {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next such call has this fault.
    pub fn next(&self, call: Call, fault: Fault) {
        self.after(call, 0, fault);
    }

    /// `skip` such calls pass, and the next one has this fault. Several orders for one kind of
    /// call each count on their own; the earlier order goes first.
    pub fn after(&self, call: Call, skip: usize, fault: Fault) {
        let order = Order { call, skip, fault };
        self.shared.orders.lock().unwrap().push_back(order);
    }

    /// Makes the next such call wait; it goes on when the returned sender is used or dropped.
    pub fn hold_next(&self, call: Call) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.next(call, Fault::Hold(held));
        release
    }

    /// Waits until `count` faults have happened in all (a held call counts when it begins to
    /// wait).
    pub async fn happened(&self, count: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if *self.shared.happened.lock().unwrap() >= count {
                return;
            }
            changed.await;
        }
    }

    fn take(&self, call: Call) -> Option<Fault> {
        let mut orders = self.shared.orders.lock().unwrap();
        let mut due = None;
        for (index, order) in orders.iter_mut().enumerate() {
            if order.call != call {
                continue;
            }
            if order.skip > 0 {
                order.skip -= 1;
            } else if due.is_none() {
                due = Some(index);
            }
        }
        let fault = orders.remove(due?)?.fault;
        *self.shared.happened.lock().unwrap() += 1;
        self.shared.changed.notify_waiters();
        Some(fault)
    }

    /// Asks for the fault of this call and waits if it is held. `Err` is the failure before the
    /// call; `Ok(true)` asks for one afterwards.
    async fn before<E>(&self, call: Call, error: impl Fn(Kind) -> E) -> Result<bool, E> {
        match self.take(call) {
            None => Ok(false),
            Some(Fault::NoSpace) => Err(error(Kind::NoSpace)),
            Some(Fault::Io) => Err(error(Kind::Io)),
            Some(Fault::IoAfter) => Ok(true),
            Some(Fault::Hold(held)) => {
                // A dropped sender lets the call go on as well.
                let _ = held.await;
                Ok(false)
            }
        }
    }

    async fn around<T, E>(
        &self,
        call: Call,
        error: impl Fn(Kind) -> E,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let fails_after = self.before(call, &error).await?;
        let done = work.await?;
        match fails_after {
            true => Err(error(Kind::Io)),
            false => Ok(done),
        }
    }
}

enum Kind {
    NoSpace,
    Io,
}

fn io() -> std::io::Error {
    std::io::Error::other("injected fault")
}

/// A metadata engine with faults.
pub struct FaultyMeta<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultyMeta<S> {
    /// Wraps an engine.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The engine itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

fn meta_error(kind: Kind) -> moat_meta::Error {
    match kind {
        Kind::NoSpace => moat_meta::Error::NoSpace,
        Kind::Io => moat_meta::Error::Engine(Box::new(io())),
    }
}

impl<S: MetaStore> MetaStore for FaultyMeta<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, moat_meta::Error> {
        let work = self.inner.get(key);
        self.faults.around(Call::Get, meta_error, work).await
    }

    async fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, moat_meta::Error> {
        let work = self.inner.scan(range, rows_max, bytes_max);
        self.faults.around(Call::Scan, meta_error, work).await
    }

    async fn last(&self, range: Range<Bytes>) -> Result<Page, moat_meta::Error> {
        let work = self.inner.last(range);
        self.faults.around(Call::Scan, meta_error, work).await
    }

    async fn commit(
        &self,
        checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> Result<Outcome, moat_meta::Error> {
        let work = self.inner.commit(checks, writes);
        self.faults.around(Call::Commit, meta_error, work).await
    }
}

/// A blob engine with faults.
pub struct FaultyBlobs<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultyBlobs<S> {
    /// Wraps an engine.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The engine itself.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

fn blob_error(id: BlobId) -> impl Fn(Kind) -> moat_blob::Error {
    move |kind| match kind {
        Kind::NoSpace => moat_blob::Error::NoSpace,
        Kind::Io => moat_blob::Error::Io {
            id,
            action: "fault",
            source: io(),
        },
    }
}

impl<S: BlobStore> BlobStore for FaultyBlobs<S> {
    type Writer = FaultyWriter<S::Writer>;
    type Reader = FaultyReader<S::Reader>;

    async fn create(&self, id: BlobId, size_hint: u64) -> Result<Self::Writer, moat_blob::Error> {
        let work = self.inner.create(id, size_hint);
        let inner = self
            .faults
            .around(Call::Create, blob_error(id), work)
            .await?;
        Ok(FaultyWriter {
            inner,
            id,
            faults: self.faults.clone(),
        })
    }

    async fn open(&self, id: BlobId) -> Result<Self::Reader, moat_blob::Error> {
        let work = self.inner.open(id);
        let inner = self.faults.around(Call::Open, blob_error(id), work).await?;
        Ok(FaultyReader {
            inner,
            id,
            faults: self.faults.clone(),
        })
    }

    async fn delete(&self, id: BlobId) -> Result<(), moat_blob::Error> {
        let work = self.inner.delete(id);
        self.faults.around(Call::Delete, blob_error(id), work).await
    }
}

/// A blob being written, with faults.
pub struct FaultyWriter<W> {
    inner: W,
    id: BlobId,
    faults: Faults,
}

impl<W: BlobWriter> BlobWriter for FaultyWriter<W> {
    async fn append(&mut self, bytes: &[u8]) -> Result<(), moat_blob::Error> {
        let work = self.inner.append(bytes);
        self.faults
            .around(Call::Append, blob_error(self.id), work)
            .await
    }

    async fn finish(self) -> Result<u64, moat_blob::Error> {
        let work = self.inner.finish();
        self.faults
            .around(Call::Finish, blob_error(self.id), work)
            .await
    }
}

/// An open blob, with faults.
pub struct FaultyReader<R> {
    inner: R,
    id: BlobId,
    faults: Faults,
}

impl<R: BlobReader> BlobReader for FaultyReader<R> {
    async fn read(&self, range: Range<u64>) -> Result<ReadBytes, moat_blob::Error> {
        let work = self.inner.read(range);
        self.faults
            .around(Call::Read, blob_error(self.id), work)
            .await
    }
}
