//! Who asks, and about which bucket: for the access log alone.

use std::sync::Arc;

use super::config::GatewayConfig;
use super::routes::Place;

/// The user of a request whose signature was right, and what it asks about. Rides in the request's
/// extensions, and only if somebody reads the access log.
#[derive(Clone)]
pub(crate) struct Caller {
    config: Arc<GatewayConfig>,
    account: usize,
    bucket: Option<String>,
    place: Option<Place>,
}

impl Caller {
    pub(super) fn new(config: &Arc<GatewayConfig>, account: usize, bucket: Option<&str>) -> Self {
        Self {
            config: Arc::clone(config),
            account,
            bucket: bucket.map(str::to_owned),
            place: None,
        }
    }

    /// Takes note of where the bucket is.
    pub(super) fn goes_to(&mut self, place: &Place) {
        self.place = Some(place.clone());
    }

    pub(crate) fn user(&self) -> &str {
        &self.config.users[self.account].name
    }

    pub(crate) fn access_key_id(&self) -> &str {
        &self.config.users[self.account].credentials.access_key_id
    }

    /// The bucket as the client calls it.
    pub(crate) fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    /// The store of the bucket, and what it is called there.
    pub(crate) fn upstream(&self) -> Option<(&str, &str)> {
        let place = self.place.as_ref()?;
        let store = &self.config.stores[place.store].name;
        Some((store, place.bucket.as_deref()?))
    }
}
