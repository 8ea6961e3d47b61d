//! Connections that wait for their next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Endpoint;
use super::multiplexed::Multiplexed;
use super::wire::Wire;
use crate::workers;

/// Threads that get a pool of their own; with more, some share one.
const SHARDS: usize = 64;

/// The unused connections of all endpoints, the last used on top: the others go idle and are
/// closed when the load sinks.
///
/// Each of [`crate::Workers`] has its own, since a connection is woken by the thread that made it.
/// A client has a few endpoints, so they are looked through in order rather than hashed.
pub(super) struct Pools {
    shards: [Mutex<Shard>; SHARDS],
    idle_max: usize,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Shard {
    idle: Vec<(Endpoint, Vec<Idle>)>,
    /// Connections of HTTP/2, which stay here while they are used.
    shared: Vec<(Endpoint, Multiplexed)>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

impl Pools {
    pub(super) fn new(idle_max: usize, idle_timeout: Duration) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            idle_max,
            idle_timeout,
        }
    }

    /// What belongs to this thread.
    fn own(&self) -> MutexGuard<'_, Shard> {
        lock(&self.shards[workers::current() % SHARDS])
    }

    /// The connection to `endpoint` that was used last, unless it ended meanwhile.
    pub(super) fn take(&self, endpoint: &Endpoint) -> Option<Box<Wire>> {
        loop {
            let Idle { mut wire, since } = waiting(&mut self.own().idle, endpoint)?.pop()?;
            // All that lie below are older still; the sweep closes them.
            if since.elapsed() < self.idle_timeout && wire.is_usable() {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection for the next request, or closes it if there are enough.
    pub(super) fn put(&self, endpoint: &Endpoint, wire: Box<Wire>) {
        let since = Instant::now();
        let mut shard = self.own();
        let idle = &mut shard.idle;
        match waiting(idle, endpoint) {
            Some(waiting) if waiting.len() < self.idle_max => waiting.push(Idle { wire, since }),
            None if self.idle_max > 0 => idle.push((endpoint.clone(), vec![Idle { wire, since }])),
            // Closing a socket is a system call: not under the lock.
            _ => drop((shard, wire)),
        }
    }

    /// A connection of HTTP/2 that can carry one request more.
    pub(super) fn share(&self, endpoint: &Endpoint) -> Option<Multiplexed> {
        let mut shard = self.own();
        let mut all = shard.shared.iter_mut();
        let found = all.find(|(of, one)| of == endpoint && one.is_usable());
        found.map(|(_, one)| one.again())
    }

    /// Lets other requests share a new connection.
    pub(super) fn keep(&self, endpoint: &Endpoint, new: &Multiplexed) {
        if self.idle_max > 0 {
            self.own().shared.push((endpoint.clone(), new.clone()));
        }
    }

    pub(super) fn clear(&self, endpoint: &Endpoint) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            // Requests that run hold theirs until they are done.
            let mut closed = Vec::new();
            closed.extend(shard.shared.extract_if(.., |(of, _)| of == endpoint));
            let idle = waiting(&mut shard.idle, endpoint).map(std::mem::take);
            drop(shard);
            drop((closed, idle));
        }
    }

    fn close_expired(&self) {
        for shard in &self.shards {
            let mut expired = Vec::new();
            let mut shard = lock(shard);
            for (_, waiting) in &mut shard.idle {
                let age = |one: &Idle| one.since.elapsed();
                let keep_from = waiting.partition_point(|one| age(one) >= self.idle_timeout);
                expired.extend(waiting.drain(..keep_from));
            }
            shard.idle.retain(|(_, waiting)| !waiting.is_empty());
            let over = |(_, one): &mut (_, Multiplexed)| one.is_expired(self.idle_timeout);
            let unused: Vec<_> = shard.shared.extract_if(.., over).collect();
            // Closing sockets takes system calls: not under the lock.
            drop(shard);
            drop((expired, unused));
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn waiting<'a>(
    idle: &'a mut [(Endpoint, Vec<Idle>)],
    endpoint: &Endpoint,
) -> Option<&'a mut Vec<Idle>> {
    idle.iter_mut()
        .find(|(of, _)| of == endpoint)
        .map(|(_, waiting)| waiting)
}

/// Stops the sweep when dropped.
pub(super) struct SweepGuard(JoinHandle<()>);

impl Drop for SweepGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Closes expired connections from time to time.
pub(super) fn sweep(pools: &Arc<Pools>) -> SweepGuard {
    let weak = Arc::downgrade(pools);
    let every = (pools.idle_timeout / 2).max(Duration::from_millis(100));
    SweepGuard(tokio::spawn(async move {
        let mut tick = tokio::time::interval(every);
        loop {
            tick.tick().await;
            match weak.upgrade() {
                Some(pools) => pools.close_expired(),
                None => return,
            }
        }
    }))
}
