//! What readers see: the newest rows in memory over the tree on disk.
//!
//! ```text
//! active    rows of the log's active segment: commits that are durable
//! frozen    rows of the segment before, while they are written to the tree
//! base      a snapshot of the tree
//! ```
//!
//! A row in a higher layer hides the same row below; `None` is a deleted row. A read takes what it
//! needs of the active layer under a lock, and the other two, which never change, by reference; it
//! is one consistent state even though it goes on after the lock is released.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{self, AtomicBool, AtomicU64};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use redb::{AccessGuard, StorageError};

use super::flusher::Message;
use super::tree::{Snapshot, sorted_storage};
use crate::{Error, Page};

/// Rows by key; `None` is a deleted row.
pub(super) type Layer = BTreeMap<Bytes, Option<Bytes>>;

/// The layers, as they change.
pub(super) struct View {
    layers: RwLock<Layers>,
    /// How often rows were made visible.
    revision: AtomicU64,
    /// To ask for the tree to be opened again after a read failed.
    messages: OnceLock<Sender<Message>>,
    reopen_asked: AtomicBool,
}

struct Layers {
    active: Layer,
    frozen: Option<Arc<Layer>>,
    base: Arc<Snapshot>,
}

impl View {
    pub(super) fn new(active: Layer, frozen: Option<Arc<Layer>>, base: Snapshot) -> Self {
        Self {
            layers: RwLock::new(Layers {
                active,
                frozen,
                base: Arc::new(base),
            }),
            revision: AtomicU64::new(0),
            messages: OnceLock::new(),
            reopen_asked: AtomicBool::new(false),
        }
    }

    /// Makes rows visible, all at once.
    pub(super) fn publish(&self, rows: impl Iterator<Item = (Bytes, Option<Bytes>)>) {
        let mut layers = self.write();
        layers.active.extend(rows);
        // Under the lock: who reads one of the rows from now on finds the new number, and who got
        // it does not read what was there before.
        self.revision.fetch_add(1, atomic::Ordering::Release);
    }

    /// See [`crate::MetaStore::revision`].
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(atomic::Ordering::Acquire)
    }

    /// Turns the active layer into the frozen one and returns it. There is no frozen one.
    pub(super) fn freeze(&self) -> Arc<Layer> {
        let mut layers = self.write();
        debug_assert!(layers.frozen.is_none(), "one at a time");
        let frozen = Arc::new(std::mem::take(&mut layers.active));
        layers.frozen = Some(frozen.clone());
        frozen
    }

    /// Puts a snapshot that contains the frozen layer in the place of both.
    pub(super) fn settle(&self, base: Snapshot) {
        let base = Arc::new(base);
        let mut layers = self.write();
        let old = (
            layers.frozen.take(),
            std::mem::replace(&mut layers.base, base),
        );
        drop(layers);
        // Freeing many rows takes a while: not under the lock.
        drop(old);
    }

    /// Puts a snapshot with the same rows in the place of one that may be broken.
    pub(super) fn rebase(&self, base: Snapshot) {
        self.write().base = Arc::new(base);
        self.reopen_asked.store(false, atomic::Ordering::Release);
    }

    /// Tells where to ask for the tree to be opened again.
    pub(super) fn connect(&self, messages: Sender<Message>) {
        let _ = self.messages.set(messages);
    }

    /// Looks at the value of a row.
    pub(super) fn with_row<R>(
        &self,
        key: &[u8],
        look: impl Fn(Option<&[u8]>) -> R,
    ) -> Result<R, Error> {
        loop {
            let layers = self.read();
            if let Some(value) = layers.active.get(key) {
                return Ok(look(value.as_deref()));
            }
            let frozen = layers.frozen.clone();
            let base = layers.base.clone();
            drop(layers);
            if let Some(value) = frozen.as_ref().and_then(|layer| layer.get(key)) {
                return Ok(look(value.as_deref()));
            }
            let found = guarded(|| {
                let found = base.get(key)?;
                Ok(look(found.as_ref().map(AccessGuard::value)))
            });
            match found {
                Ok(found) => return Ok(found),
                Err(error) => self.read_failed(&base, error)?,
            }
        }
    }

    /// Takes a consistent state for a page of a range.
    pub(super) fn cut(&self, range: Range<Bytes>, rows_max: usize, bytes_max: usize) -> Cut {
        let layers = self.read();
        let mut rows = 0;
        let mut bytes = 0;
        let mut active = Vec::new();
        // A page ends at the latest with the row that fills it if the other layers add none.
        for (key, value) in layers.active.range::<[u8], _>(bounds(&range)) {
            if rows >= rows_max || bytes >= bytes_max {
                break;
            }
            if let Some(value) = value {
                rows += 1;
                bytes += key.len() + value.len();
            }
            active.push((key.clone(), value.clone()));
        }
        Cut {
            active,
            frozen: layers.frozen.clone(),
            base: layers.base.clone(),
            range,
        }
    }

    /// Takes a consistent state for the last row of a range.
    pub(super) fn cut_end(&self, range: Range<Bytes>) -> Cut {
        let layers = self.read();
        let mut active = Vec::new();
        for (key, value) in layers.active.range::<[u8], _>(bounds(&range)).rev() {
            active.push((key.clone(), value.clone()));
            if value.is_some() {
                break;
            }
        }
        active.reverse();
        Cut {
            active,
            frozen: layers.frozen.clone(),
            base: layers.base.clone(),
            range,
        }
    }

    /// Returns if the read is to be tried again: the snapshot was closed because the tree had to
    /// be opened again, and another one is there.
    ///
    /// # Errors
    /// There is no other one. The tree will be opened again, for the reads that follow.
    pub(super) fn read_failed(
        &self,
        base: &Arc<Snapshot>,
        error: StorageError,
    ) -> Result<(), Error> {
        if !Arc::ptr_eq(&self.read().base, base) {
            return Ok(());
        }
        if !self.reopen_asked.swap(true, atomic::Ordering::AcqRel)
            && let Some(messages) = self.messages.get()
        {
            tracing::error!(%error, "a read of the metadata tree failed; opening it again");
            // No receiver: the engine is closing.
            let _ = messages.send(Message::Reopen);
        }
        Err(sorted_storage(error))
    }

    fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().expect("no panic while held")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().expect("no panic while held")
    }
}

/// A consistent state of a range.
pub(super) struct Cut {
    active: Vec<(Bytes, Option<Bytes>)>,
    frozen: Option<Arc<Layer>>,
    pub(super) base: Arc<Snapshot>,
    range: Range<Bytes>,
}

impl Cut {
    /// Adds rows after those that `page` holds, until it has `rows_max` or `bytes_max` or there is
    /// no further one.
    pub(super) fn fill(
        &self,
        page: &mut Page,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<(), StorageError> {
        let range = self.after(page);
        let start = self.active.partition_point(|(key, _)| *key < range.start);
        let upper = merge(
            self.active[start..].iter().map(|(key, value)| (key, value)),
            self.frozen
                .iter()
                .flat_map(|layer| layer.range::<[u8], _>(bounds(&range))),
            Ordering::Less,
        );
        guarded(|| {
            let base = self.base.range::<&[u8]>(bounds(&range))?;
            over_base(upper, base, Ordering::Less, |key, value| {
                if page.len() >= rows_max || (page.bytes() >= bytes_max && !page.is_empty()) {
                    return ControlFlow::Break(());
                }
                page.push(key, value);
                ControlFlow::Continue(())
            })
        })
    }

    /// Sets `page` to the last row of the range.
    pub(super) fn last(&self) -> Result<Page, StorageError> {
        let upper = merge(
            self.active.iter().rev().map(|(key, value)| (key, value)),
            self.frozen
                .iter()
                .flat_map(|layer| layer.range::<[u8], _>(bounds(&self.range)).rev()),
            Ordering::Greater,
        );
        guarded(|| {
            let base = self.base.range::<&[u8]>(bounds(&self.range))?;
            let mut page = Page::default();
            over_base(upper, base.rev(), Ordering::Greater, |key, value| {
                page.push(key, value);
                ControlFlow::Break(())
            })?;
            Ok(page)
        })
    }

    /// The part of the range that comes after the page's last row.
    fn after(&self, page: &Page) -> Range<Bytes> {
        let Some(last) = page.len().checked_sub(1) else {
            return self.range.clone();
        };
        let mut start = page.row(last).0.to_vec();
        start.push(0);
        start.into()..self.range.end.clone()
    }
}

/// Runs a read of the tree. redb asserts what it expects to find in its file, so a damaged one can
/// make it panic: that is an error of the read, not the end of the thread.
fn guarded<R>(read: impl FnOnce() -> Result<R, StorageError>) -> Result<R, StorageError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let problem = "reading the tree panicked".to_owned();
        Err(StorageError::Corrupted(problem))
    })
}

fn bounds(range: &Range<Bytes>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(&range.start), Bound::Excluded(&range.end))
}

type Row<'a> = (&'a Bytes, &'a Option<Bytes>);

/// Two layers in one order; where both have a row, the upper one's counts. `first` is how the key
/// that comes first compares to the other: `Less` for ascending order.
fn merge<'a>(
    upper: impl Iterator<Item = Row<'a>>,
    lower: impl Iterator<Item = Row<'a>>,
    first: Ordering,
) -> impl Iterator<Item = Row<'a>> {
    let mut upper = upper.peekable();
    let mut lower = lower.peekable();
    std::iter::from_fn(move || match (upper.peek(), lower.peek()) {
        (Some((above, _)), Some((below, _))) => match above.cmp(below) {
            Ordering::Equal => {
                lower.next();
                upper.next()
            }
            order if order == first => upper.next(),
            _ => lower.next(),
        },
        (Some(_), None) => upper.next(),
        (None, _) => lower.next(),
    })
}

/// Gives the rows of the tree with those of the layers above it, without deleted ones.
fn over_base<'a>(
    upper: impl Iterator<Item = Row<'a>>,
    base: impl Iterator<Item = Result<BaseRow, StorageError>>,
    first: Ordering,
    mut give: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let mut upper: Peekable<_> = upper.peekable();
    for row in base {
        let (base_key, base_value) = row?;
        let base_key = base_key.value();
        let mut hidden = false;
        while let Some((key, value)) = upper.peek() {
            let order = key[..].cmp(base_key);
            if order != first && order != Ordering::Equal {
                break;
            }
            if let Some(value) = value
                && give(key, value).is_break()
            {
                return Ok(());
            }
            upper.next();
            if order == Ordering::Equal {
                hidden = true;
                break;
            }
        }
        if !hidden && give(base_key, base_value.value()).is_break() {
            return Ok(());
        }
    }
    for (key, value) in upper {
        if let Some(value) = value
            && give(key, value).is_break()
        {
            return Ok(());
        }
    }
    Ok(())
}

type BaseRow = (
    AccessGuard<'static, &'static [u8]>,
    AccessGuard<'static, &'static [u8]>,
);
