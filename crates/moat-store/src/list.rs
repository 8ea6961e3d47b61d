//! LIST as range scans: rows already hold what LIST answers with, and a delimiter seeks past the
//! keys that one common prefix stands for.

use std::ops::Range;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_meta::{MetaStore, Page, prefix_end};
use moat_types::{BucketName, ObjectKey, UploadId};

use crate::Store;
use crate::error::Result;
use crate::rows::{Damaged, ListedObject, UploadRow, keys};

/// Rows read at once from a folder that is listed with a delimiter: many keys may be skipped.
const FOLDER_ROWS: usize = 128;
/// Rows read at once otherwise.
const SCAN_ROWS: usize = 1000;
/// Bytes read at once.
const SCAN_BYTES: usize = 4 << 20;

/// What to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    /// Keys and common prefixes up to this one are left out.
    pub(crate) after: String,
    /// Keys and common prefixes together.
    pub(crate) entries_max: usize,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// A row of one of the pages: its page, and its place in it.
    Object(usize, usize),
    /// A common prefix.
    Prefix(String),
}

/// A listing. Rows stay in the pages that they were read in.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pages: Vec<Page>,
    /// In key order.
    pub(crate) entries: Vec<Listed>,
    /// The last key or common prefix, if there are more.
    pub(crate) next_after: Option<String>,
    key_start: usize,
}

impl Listing {
    /// Key and entry of an object.
    pub(crate) fn object(&self, page: usize, row: usize) -> Result<(&str, ListedObject<'_>)> {
        let (key, value) = self.pages[page].row(row);
        Ok((self.key(key)?, ListedObject::decode(value)?))
    }

    /// The keys of all listed objects.
    pub(crate) fn object_keys(&self) -> Result<Vec<ObjectKey>> {
        let mut keys = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            if let Listed::Object(page, row) = entry {
                let key = self.key(self.pages[*page].row(*row).0)?;
                keys.push(ObjectKey::parse(key).map_err(|_| Damaged("object key in a row's key"))?);
            }
        }
        Ok(keys)
    }

    fn key<'a>(&self, row_key: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(&row_key[self.key_start..])
            .map_err(|_| Damaged("object key in a row's key").into())
    }

    fn name(&self, entry: &Listed) -> Result<String> {
        match entry {
            Listed::Prefix(prefix) => Ok(prefix.clone()),
            Listed::Object(page, row) => Ok(self.key(self.pages[*page].row(*row).0)?.to_owned()),
        }
    }
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Lists objects and common prefixes in byte order of their keys.
    pub(crate) async fn list(&self, bucket: &BucketName, query: &ListQuery) -> Result<Listing> {
        self.bucket_row(bucket).await?;
        let base = keys::object_prefix(bucket);
        let mut listing = Listing {
            key_start: base.len(),
            ..Listing::default()
        };
        if query.entries_max == 0 {
            return Ok(listing);
        }
        let mut range = scan_range(&base, query);
        let folder = !query.delimiter.is_empty();
        while range.start < range.end {
            let left = query.entries_max + 1 - listing.entries.len();
            let rows = left.min(if folder { FOLDER_ROWS } else { SCAN_ROWS });
            let page = self.meta.scan(range.clone(), rows, SCAN_BYTES).await?;
            if page.is_empty() {
                break;
            }
            let next = take_in(&mut listing, page, &base, query)?;
            if listing.entries.len() > query.entries_max {
                listing.entries.truncate(query.entries_max);
                let last = listing.entries.last().expect("entries_max is at least 1");
                listing.next_after = Some(listing.name(last)?);
                break;
            }
            range.start = next;
        }
        Ok(listing)
    }

    /// Lists uploads in progress in order of key, then upload id.
    pub(crate) async fn list_uploads(
        &self,
        bucket: &BucketName,
        query: &UploadQuery,
    ) -> Result<UploadListing> {
        self.bucket_row(bucket).await?;
        let prefix = keys::upload_prefix(bucket);
        let start = query.key_marker.as_str().max(query.prefix.as_str());
        let mut range = keys::uploads_from(bucket, start)..prefix_end(&prefix);
        let mut listing = UploadListing::default();
        'pages: loop {
            let page = self.meta.scan(range.clone(), SCAN_ROWS, SCAN_BYTES).await?;
            for (key, row) in page.rows() {
                let (object, id) = keys::parse_upload(key, &prefix).ok_or(Damaged("upload key"))?;
                if !object.starts_with(&query.prefix) {
                    if object.as_str() > query.prefix.as_str() {
                        break 'pages;
                    }
                    continue;
                }
                if !query.is_past(&object, id) {
                    continue;
                }
                let folder = common_prefix(&object, &query.prefix, &query.delimiter);
                if let Some(folder) = folder {
                    if folder <= query.key_marker.as_str()
                        || listing.prefixes.last().is_some_and(|last| last == folder)
                    {
                        continue;
                    }
                    if listing.is_full(query) {
                        break 'pages;
                    }
                    listing.prefixes.push(folder.to_owned());
                    listing.last = Some((folder.to_owned(), None));
                    continue;
                }
                if listing.is_full(query) {
                    break 'pages;
                }
                listing.last = Some((object.clone(), Some(id)));
                listing.uploads.push((object, id, UploadRow::decode(row)?));
            }
            if page.len() < SCAN_ROWS {
                break;
            }
            range.start = just_after(page.row(page.len() - 1).0);
        }
        Ok(listing)
    }
}

/// What ListMultipartUploads asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct UploadQuery {
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    pub(crate) key_marker: String,
    /// Only with `key_marker`.
    pub(crate) upload_marker: Option<UploadId>,
    pub(crate) entries_max: usize,
}

impl UploadQuery {
    fn is_past(&self, object: &str, id: UploadId) -> bool {
        if self.key_marker.is_empty() {
            return true;
        }
        match self.upload_marker {
            Some(marker) if object == self.key_marker => id > marker,
            _ => object > self.key_marker.as_str(),
        }
    }
}

/// Uploads in progress.
#[derive(Debug, Default)]
pub(crate) struct UploadListing {
    pub(crate) uploads: Vec<(String, UploadId, UploadRow)>,
    pub(crate) prefixes: Vec<String>,
    /// Key and id of the last entry.
    pub(crate) last: Option<(String, Option<UploadId>)>,
    pub(crate) truncated: bool,
}

impl UploadListing {
    fn is_full(&mut self, query: &UploadQuery) -> bool {
        self.truncated = self.uploads.len() + self.prefixes.len() >= query.entries_max;
        self.truncated
    }
}

/// The rows that can hold an entry after `query.after` under `query.prefix`.
fn scan_range(base: &[u8], query: &ListQuery) -> Range<Bytes> {
    let with_prefix = [base, query.prefix.as_bytes()].concat();
    let end = prefix_end(&with_prefix);
    let mut start = Bytes::from(with_prefix);
    if !query.after.is_empty() {
        let after_folder = !query.delimiter.is_empty()
            && query.after.starts_with(&query.prefix)
            && common_prefix(&query.after, &query.prefix, &query.delimiter)
                == Some(query.after.as_str());
        let after = [base, query.after.as_bytes()].concat();
        let next = if after_folder {
            prefix_end(&after)
        } else {
            just_after(&after)
        };
        start = start.max(next);
    }
    start..end
}

/// Adds a page's rows to the listing and says where the next page begins.
fn take_in(listing: &mut Listing, page: Page, base: &[u8], query: &ListQuery) -> Result<Bytes> {
    let page_index = listing.pages.len();
    listing.pages.push(page);
    let page = &listing.pages[page_index];
    let mut entries = std::mem::take(&mut listing.entries);
    let mut next = Bytes::new();
    // Rows of a common prefix that was just listed; they are skipped here, and by seeking when
    // the page ends among them.
    let mut skip: Option<Vec<u8>> = None;
    for (index, (row_key, _)) in page.rows().enumerate() {
        if skip.as_ref().is_some_and(|skip| row_key.starts_with(skip)) {
            continue;
        }
        if query.delimiter.is_empty() {
            entries.push(Listed::Object(page_index, index));
            continue;
        }
        let key = listing.key(row_key)?;
        match common_prefix(key, &query.prefix, &query.delimiter) {
            None => entries.push(Listed::Object(page_index, index)),
            Some(folder) => {
                entries.push(Listed::Prefix(folder.to_owned()));
                skip = Some([base, folder.as_bytes()].concat());
            }
        }
    }
    let (last, _) = page.row(page.len() - 1);
    if let Some(skip) = skip.filter(|skip| last.starts_with(skip)) {
        next = prefix_end(&skip);
    }
    if next.is_empty() {
        next = just_after(last);
    }
    listing.entries = entries;
    Ok(next)
}

/// The part of `key` up to and including the first delimiter after `prefix`.
fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

fn just_after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
