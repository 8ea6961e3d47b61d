//! Endpoints by name: every address that a name stands for is a backend of its own, and names are
//! looked up again.
//!
//! A name that cannot be looked up keeps its backends: DNS that is away for a while must not take the
//! stores away with it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moat_net::Endpoint;
use tokio::time::Instant;

use crate::Upstream;
use crate::backend::Backend;
use crate::site::Site;

/// Lookups out of turn, which failing probes ask for, are not more frequent than this.
const LOOKUPS_APART: Duration = Duration::from_secs(1);
/// Addresses that are used of one name. A DNS answer over UDP holds fewer.
const ADDRESSES_MAX: usize = 256;

/// Whether any endpoint has a name to look up.
pub(crate) fn is_needed(upstreams: &[Upstream]) -> bool {
    upstreams.iter().any(|one| one.endpoint.address().is_none())
}

/// Looks the names of a site up for ever.
pub(crate) async fn for_ever(site: Arc<Site>, every: Duration) {
    loop {
        let began = Instant::now();
        look_up_all(&site).await;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = site.resolve_now.notified() => {
                tokio::time::sleep_until(began + LOOKUPS_APART.min(every)).await;
            }
        }
    }
}

async fn look_up_all(site: &Arc<Site>) {
    let mut wanted = Vec::new();
    for upstream in &site.config.upstreams {
        let present = of_upstream(site, upstream);
        if upstream.endpoint.address().is_some() {
            wanted.extend(present);
            continue;
        }
        match look_up(site, &upstream.endpoint).await {
            Ok(addresses) => wanted.extend(reconcile(site, upstream, present, &addresses)),
            Err(error) => {
                tracing::warn!(endpoint = %upstream.endpoint, %error, "the name can't be looked up, its last addresses stay in use");
                wanted.extend(present);
            }
        }
    }
    let ids = |all: &[Arc<Backend>]| all.iter().map(|one| one.id).collect::<Vec<_>>();
    if ids(&wanted) != ids(&site.backends()) {
        site.set_backends(wanted);
    }
}

async fn look_up(site: &Site, endpoint: &Endpoint) -> io::Result<BTreeSet<IpAddr>> {
    let answers = (site.lookup)(endpoint.host().to_owned()).await?;
    let addresses: BTreeSet<_> = answers.into_iter().take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

fn of_upstream(site: &Site, upstream: &Upstream) -> Vec<Arc<Backend>> {
    let backends = site.backends();
    let of_it = backends.iter().filter(|one| one.upstream == *upstream);
    of_it.cloned().collect()
}

/// Backends for these addresses: those that are there, and new ones.
fn reconcile(
    site: &Site,
    upstream: &Upstream,
    present: Vec<Arc<Backend>>,
    addresses: &BTreeSet<IpAddr>,
) -> Vec<Arc<Backend>> {
    let at = |address: &IpAddr| {
        let found = present
            .iter()
            .find(|one| one.endpoint.address() == Some(*address));
        found.cloned().unwrap_or_else(|| {
            tracing::info!(endpoint = %upstream.endpoint, %address, "address in use");
            site.backend_for(upstream, upstream.endpoint.at(*address))
        })
    };
    addresses.iter().map(at).collect()
}
