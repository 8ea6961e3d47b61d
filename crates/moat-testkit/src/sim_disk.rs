//! A disk in memory that forgets what was not synced.
//!
//! [`SimDisk`] stands under the embedded metadata engine. It can lose power at any sync, after
//! which every call fails, and [`SimDisk::after_power_cut`] gives what would be found on the disk
//! then. It can also be full.
//!
//! The model is the weakest that file systems give: of the writes that were not synced, any subset
//! arrives, each whole or in any of its sectors; names arrive in the order they were changed, up to
//! any point. What was synced is never hurt unless it is written again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use moat_meta::files::{DataFile, Files};

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Which writes that were not synced survive the power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// None of them.
    Lost,
    /// All of them.
    Kept,
    /// Any of them, in any of their sectors, drawn from this seed.
    Torn(u64),
}

/// The disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
struct World {
    files: HashMap<u64, Content>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync of the folder.
    name_changes: Vec<NameChange>,
    syncs: u64,
    dies_at_sync: Option<u64>,
    dead: bool,
    /// `None` is no limit.
    capacity: Option<u64>,
    hides_free_space: bool,
    failing_writes: Option<ErrorKind>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

/// Contents of a file: as programs see it, and as it is on the disk.
#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power goes when sync number `sync` (from 0, of files and folder alike) is called: it
    /// makes nothing durable, and fails like every call after it.
    pub fn dies_at_sync(&self, sync: u64) {
        self.lock().dies_at_sync = Some(sync);
    }

    /// Syncs called so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Whether the power went.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Limits the bytes of all files together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Whether free space is reported as unlimited (a quota does that), so that a full disk shows
    /// only in the middle of a write.
    pub fn hide_free_space(&self, hide: bool) {
        self.lock().hides_free_space = hide;
    }

    /// Makes all writes fail in this way, or succeed again.
    pub fn fail_writes(&self, kind: Option<ErrorKind>) {
        self.lock().failing_writes = kind;
    }

    /// What is found on the disk when the power comes back: another disk, so that one cut can be
    /// looked at in several ways.
    pub fn after_power_cut(&self, unsynced: Unsynced) -> Self {
        let world = self.lock();
        let mut choice = Choice::new(unsynced);
        let mut after = World {
            next_file: world.next_file,
            names: world.durable_names.clone(),
            capacity: world.capacity,
            ..World::default()
        };
        let arrived = choice.up_to(world.name_changes.len());
        for change in &world.name_changes[..arrived] {
            change.apply(&mut after.names);
        }
        after.durable_names = after.names.clone();
        // In the order of their numbers, so that a seed always means the same.
        let mut files: Vec<_> = world.files.iter().collect();
        files.sort_unstable_by_key(|(file, _)| **file);
        for (file, content) in files {
            let mut bytes = content.durable.clone();
            for change in &content.unsynced {
                choice.apply_some(change, &mut bytes);
            }
            let content = Content {
                now: bytes.clone(),
                durable: bytes,
                unsynced: Vec::new(),
            };
            after.files.insert(*file, content);
        }
        Self {
            world: Arc::new(Mutex::new(after)),
        }
    }

    /// Contents of a file.
    ///
    /// # Panics
    /// If there is none.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let world = self.lock();
        world.files[&world.names[name]].now.clone()
    }

    /// Sets the contents of a file, durably, behind the engine's back.
    pub fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.lock();
        let file = match world.names.get(name) {
            Some(file) => *file,
            None => world.new_file(),
        };
        let content = Content {
            now: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        };
        world.files.insert(file, content);
        world.names.insert(name.to_owned(), file);
        world.durable_names.insert(name.to_owned(), file);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.lock();
        match world.dead {
            true => Err(power_cut()),
            false => Ok(world),
        }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power is cut")
}

impl World {
    fn new_file(&mut self) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, Content::default());
        self.next_file
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.get_mut(&file).expect("files are kept")
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|file| self.files[file].now.len() as u64)
            .sum()
    }

    fn check_room(&self, file: u64, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.files[&file].now.len() as u64);
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn check_writes(&self) -> io::Result<()> {
        self.failing_writes.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Counts a sync; the one at which the power goes fails.
    fn sync(&mut self) -> io::Result<()> {
        if self.dies_at_sync == Some(self.syncs) {
            self.dead = true;
            return Err(power_cut());
        }
        self.syncs += 1;
        Ok(())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write_at(bytes, *offset, data),
            Self::SetLen(len) => bytes.resize(*len as usize, 0),
        }
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

impl Files for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = self.alive()?.number(name)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut world = self.alive()?;
        let file = world.new_file();
        world.change_name(NameChange::Set(name.to_owned(), file));
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.alive()?;
        world.number(from)?;
        world.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.alive()?;
        world.number(name)?;
        world.change_name(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.alive()?;
        world.sync()?;
        world.name_changes.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> u64 {
        let world = self.lock();
        match world.capacity {
            Some(capacity) if !world.hides_free_space => capacity.saturating_sub(world.used()),
            _ => u64::MAX,
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl DataFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.files[&self.file].now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let world = self.disk.alive()?;
        let bytes = &world.files[&self.file].now;
        if out.is_empty() {
            return Ok(());
        }
        let start = offset as usize;
        let found = bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut world = self.disk.alive()?;
        world.check_writes()?;
        let data = slices.concat();
        world.check_room(self.file, offset + data.len() as u64)?;
        let content = world.content(self.file);
        write_at(&mut content.now, offset, &data);
        content.unsynced.push(Change::Write(offset, data));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.alive()?;
        world.check_writes()?;
        world.check_room(self.file, len)?;
        let content = world.content(self.file);
        content.now.resize(len as usize, 0);
        content.unsynced.push(Change::SetLen(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.alive()?;
        world.sync()?;
        let content = world.content(self.file);
        for change in std::mem::take(&mut content.unsynced) {
            change.apply(&mut content.durable);
        }
        Ok(())
    }
}

/// Draws what survives.
struct Choice {
    unsynced: Unsynced,
    state: u64,
}

impl Choice {
    fn new(unsynced: Unsynced) -> Self {
        let state = match unsynced {
            Unsynced::Torn(seed) => seed,
            Unsynced::Lost | Unsynced::Kept => 0,
        };
        Self { unsynced, state }
    }

    /// SplitMix64: short, and good enough to choose.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn up_to(&mut self, count: usize) -> usize {
        match self.unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => count,
            Unsynced::Torn(_) => (self.next() % (count as u64 + 1)) as usize,
        }
    }

    fn apply_some(&mut self, change: &Change, bytes: &mut Vec<u8>) {
        match self.unsynced {
            Unsynced::Lost => {}
            Unsynced::Kept => change.apply(bytes),
            Unsynced::Torn(_) => match (self.next() % 4, change) {
                (0, _) => {}
                (1, _) | (_, Change::SetLen(_)) => change.apply(bytes),
                (_, Change::Write(offset, data)) => self.tear(*offset, data, bytes),
            },
        }
    }

    /// Each sector of the write arrives or not.
    fn tear(&mut self, mut offset: u64, mut data: &[u8], bytes: &mut Vec<u8>) {
        while !data.is_empty() {
            let to_boundary = SECTOR_BYTES - offset as usize % SECTOR_BYTES;
            let (sector, rest) = data.split_at(to_boundary.min(data.len()));
            if self.next().is_multiple_of(2) {
                write_at(bytes, offset, sector);
            }
            offset += sector.len() as u64;
            data = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_synced_is_lost_or_torn() {
        let disk = SimDisk::new();
        let file = disk.create("a").unwrap();
        file.write(0, &[&[1; 2_048]]).unwrap();
        file.sync().unwrap();
        assert!(
            disk.after_power_cut(Unsynced::Lost)
                .list()
                .unwrap()
                .is_empty(),
            "the name was not synced"
        );
        disk.sync().unwrap();
        file.write(1_024, &[&[2; 2_048]]).unwrap();
        let contents = |unsynced| disk.after_power_cut(unsynced).contents("a");
        assert_eq!(contents(Unsynced::Lost), [1; 2_048]);
        assert_eq!(contents(Unsynced::Kept), disk.contents("a"));
        let mut torn = 0;
        for seed in 0..100 {
            let found = contents(Unsynced::Torn(seed));
            assert_eq!(found[..1_024], [1; 1_024], "synced and not written again");
            torn += usize::from(found != disk.contents("a") && found != [1; 2_048]);
        }
        assert!(torn > 20, "{torn}");
    }

    #[test]
    fn a_cut_disk_answers_nothing() {
        let disk = SimDisk::new();
        disk.dies_at_sync(1);
        let file = disk.create("a").unwrap();
        disk.sync().unwrap();
        assert!(file.sync().is_err());
        assert!(disk.is_dead());
        assert!(file.write(0, &[b"x"]).is_err());
        assert!(disk.list().is_err());
    }
}
