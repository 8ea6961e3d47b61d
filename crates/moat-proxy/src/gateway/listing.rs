//! ListBuckets: the buckets that a user reaches through the gateway, in all stores, by the clients' names.
//!
//! Of the first store these are all that it has, but for those that no name leads to; of others, those
//! with a route that are there. A user without `s3:ListAllMyBuckets` sees the buckets that a policy lets
//! it list or locate, as on MinIO. The page (`prefix`, `max-buckets`, `continuation-token`) is cut out of
//! the whole here, since no store knows the order of the clients' names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use moat_s3::policy::{Facts, Question, is_allowed};
use moat_s3::request::Query;
use moat_s3::xml::{BucketList, Owner, list_buckets_result};
use moat_s3::{ErrorCode, S3Error};
use moat_types::UnixMillis;

use super::config::GatewayConfig;
use super::plan::Plan;
use super::routes::Routes;

/// The most buckets of one page, as on AWS.
const PAGE_BUCKETS_MAX: usize = 10_000;
/// The date of a bucket that its store tells none of. Clients fail without a date, and this one says
/// that it is none.
const NO_DATE: UnixMillis = UnixMillis(0);

/// A ListBuckets that is allowed.
pub(crate) struct Listing {
    config: Arc<GatewayConfig>,
    routes: Arc<Routes>,
    viewer: Viewer,
    page: Page,
    questions: Vec<(usize, Plan)>,
}

/// Who looks.
pub(super) struct Viewer {
    /// The place in the list of users.
    pub(super) account: usize,
    pub(super) address: IpAddr,
    pub(super) secure: bool,
    /// Whether every bucket is shown.
    pub(super) sees_all: bool,
}

/// What part of the list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    prefix: String,
    after: String,
    count_max: usize,
}

impl Page {
    /// # Errors
    /// `InvalidArgument` for a number that is none; `NotImplemented` for a region, which only some stores
    /// tell of their buckets.
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, S3Error> {
        if query.has("bucket-region") {
            return Err(S3Error::new(
                ErrorCode::NotImplemented,
                "This gateway does not know the regions of buckets. Leave bucket-region out.",
            ));
        }
        let text = |name| query.get(name).unwrap_or_default().to_owned();
        let count_max = match query.get("max-buckets") {
            None | Some("") => PAGE_BUCKETS_MAX,
            Some(text) => text
                .parse()
                .ok()
                .filter(|count| (1..=PAGE_BUCKETS_MAX).contains(count))
                .ok_or_else(|| {
                    S3Error::new(
                        ErrorCode::InvalidArgument,
                        "Argument max-buckets must be an integer between 1 and 10000",
                    )
                })?,
        };
        Ok(Self {
            prefix: text("prefix"),
            after: text("continuation-token"),
            count_max,
        })
    }
}

impl Viewer {
    fn may_see(&self, config: &GatewayConfig, bucket: &str) -> bool {
        let user = &config.users[self.account];
        let facts = Facts {
            user: Some(&user.name),
            source: Some(self.address),
            secure: self.secure,
            ..Facts::default()
        };
        let may = |action| {
            let question = Question {
                action,
                resource: bucket,
                facts: &facts,
            };
            is_allowed(&user.policies, &question)
        };
        self.sees_all || may("s3:ListBucket") || may("s3:GetBucketLocation")
    }
}

impl Listing {
    /// `plan` says how a store is asked.
    pub(super) fn new(
        config: &Arc<GatewayConfig>,
        routes: &Arc<Routes>,
        viewer: Viewer,
        page: Page,
        plan: impl Fn(usize) -> Plan,
    ) -> Self {
        let stores = 0..config.stores.len();
        let has_names = |store: &usize| *store == 0 || routes.names_in(*store).next().is_some();
        Self {
            questions: stores
                .filter(has_names)
                .map(|store| (store, plan(store)))
                .collect(),
            config: Arc::clone(config),
            routes: Arc::clone(routes),
            viewer,
            page,
        }
    }

    /// The stores to ask and how, the first one first.
    pub(crate) fn take_questions(&mut self) -> Vec<(usize, Plan)> {
        std::mem::take(&mut self.questions)
    }

    /// What a store is called in logs.
    pub(crate) fn name_of_store(&self, store: usize) -> &str {
        &self.config.stores[store].name
    }

    /// The answer, from what the stores said; `None`: nothing. Of such a store all names are shown that
    /// the configuration gives it: whoever asks for one of them learns from the answer what is wrong.
    ///
    /// # Errors
    /// `AccessDenied` if the user may see no bucket at all.
    pub(crate) fn document(
        &self,
        said: Vec<(usize, Option<BucketList>)>,
    ) -> Result<Vec<u8>, S3Error> {
        let mut owner = None;
        let mut seen = BTreeMap::new();
        for (store, list) in said {
            let Some(list) = list else {
                let names = self.routes.names_in(store);
                seen.extend(names.map(|name| (name.to_owned(), NO_DATE)));
                continue;
            };
            // That of the first store, which also stands in its lists of objects and its ACLs.
            owner = owner.or(list.owner.filter(|_| store == 0));
            for (upstream, created) in list.buckets {
                if let Some(name) = self.routes.name_of(store, &upstream) {
                    seen.insert(name.to_owned(), created);
                }
            }
        }
        seen.retain(|name, _| self.viewer.may_see(&self.config, name));
        if seen.is_empty() && !self.viewer.sees_all {
            return Err(ErrorCode::AccessDenied.into());
        }
        let (id, display_name) = owner.unwrap_or_else(|| {
            let name = &self.config.users[self.viewer.account].name;
            (name.clone(), name.clone())
        });
        let owner = Owner {
            id: &id,
            display_name: &display_name,
        };
        Ok(self.page.of(&owner, &seen))
    }
}

impl Page {
    fn of(&self, owner: &Owner<'_>, seen: &BTreeMap<String, UnixMillis>) -> Vec<u8> {
        let wanted =
            |(name, _): &(&String, _)| name.starts_with(&self.prefix) && **name > self.after;
        let mut rest = seen.iter().filter(wanted);
        let shown: Vec<_> = rest
            .by_ref()
            .take(self.count_max)
            .map(|(name, created)| (&name[..], *created))
            .collect();
        let last = shown.last().map(|(name, _)| *name);
        let next = last.filter(|_| rest.next().is_some());
        let prefix = Some(&self.prefix[..]).filter(|prefix| !prefix.is_empty());
        list_buckets_result(owner, shown.iter().copied(), prefix, next)
    }
}

#[cfg(test)]
mod tests {
    use moat_s3::policy::Policy;
    use moat_s3::sigv4::Credentials;
    use moat_s3::xml::read_list_buckets;
    use moat_types::SecretString;

    use super::super::config::{BucketRoute, Store, User};
    use super::super::keys::KeySource;
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            access_key_id: "id".to_owned(),
            secret_access_key: SecretString::new("secret".to_owned()),
            session_token: None,
        }
    }

    fn store(name: &str, site: usize) -> Store {
        Store {
            name: name.to_owned(),
            sites: site..site + 1,
            region: "r".to_owned(),
            keys: KeySource::Fixed(credentials()),
        }
    }

    fn route(name: &str, store: usize, upstream_name: &str) -> BucketRoute {
        BucketRoute {
            name: name.to_owned(),
            store,
            upstream_name: upstream_name.to_owned(),
        }
    }

    fn listing(policy: &str, sees_all: bool, query: &str) -> Listing {
        let user = User {
            name: "ann".to_owned(),
            credentials: credentials(),
            policies: vec![
                Policy::built_in(policy).unwrap_or_else(|| Policy::parse(policy).unwrap()),
            ],
        };
        let mut config = GatewayConfig::new(vec![user], store("default", 0));
        config.stores.push(store("archive", 1));
        config.buckets = vec![
            route("lake", 0, "lake-7"),
            route("cold", 1, "cold-7"),
            route("gone", 1, "gone"),
        ];
        Listing {
            routes: Arc::new(Routes::new(&config.buckets)),
            config: Arc::new(config),
            viewer: Viewer {
                account: 0,
                address: IpAddr::from([127, 0, 0, 1]),
                secure: true,
                sees_all,
            },
            page: Page::parse(&Query::parse(query).unwrap()).unwrap(),
            questions: Vec::new(),
        }
    }

    fn said(owner: &str, names: &[&str]) -> Option<BucketList> {
        Some(BucketList {
            owner: Some((owner.to_owned(), owner.to_owned())),
            buckets: names
                .iter()
                .map(|name| ((*name).to_owned(), UnixMillis(9)))
                .collect(),
            continuation_token: None,
        })
    }

    /// Names, the owner, and the token of the next page.
    fn shown(listing: &Listing, archive: Option<BucketList>) -> (String, String, Option<String>) {
        // The first store has a bucket of the name that leads to the other store.
        let first = said("root", &["plain", "lake-7", "cold", "zoo"]);
        let document = listing.document(vec![(0, first), (1, archive)]).unwrap();
        let read = read_list_buckets(&document).unwrap();
        let names = read.buckets.iter().map(|(name, created)| match *created {
            NO_DATE => format!("{name}?"),
            _ => name.clone(),
        });
        let owner = read.owner.unwrap().0;
        (
            names.collect::<Vec<_>>().join(" "),
            owner,
            read.continuation_token,
        )
    }

    #[test]
    fn all_that_can_be_reached_is_listed_by_the_name_that_reaches_it() {
        let all = listing("readwrite", true, "");
        let archive = said("other", &["cold-7", "nobodys"]);
        let (names, owner, next) = shown(&all, archive);
        assert_eq!(
            (&names[..], &owner[..], next),
            ("cold lake plain zoo", "root", None)
        );
    }

    #[test]
    fn of_a_store_that_says_nothing_the_configured_buckets_are_shown() {
        let all = listing("readwrite", true, "");
        let (names, ..) = shown(&all, None);
        assert_eq!(names, "cold? gone? lake plain zoo");
    }

    #[test]
    fn pages_follow_the_order_of_the_clients_names() {
        let page = |query| {
            let (names, _, next) = shown(
                &listing("readwrite", true, query),
                said("other", &["cold-7"]),
            );
            (names, next)
        };
        let more = |name: &str| Some(name.to_owned());
        assert_eq!(
            page("max-buckets=2"),
            ("cold lake".to_owned(), more("lake"))
        );
        assert_eq!(
            page("max-buckets=2&continuation-token=lake"),
            ("plain zoo".to_owned(), None)
        );
        assert_eq!(page("prefix=la"), ("lake".to_owned(), None));
        assert_eq!(page("prefix=lake-"), (String::new(), None));
        for bad in ["max-buckets=0", "max-buckets=10001", "max-buckets=x"] {
            let error = Page::parse(&Query::parse(bad).unwrap()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
        let region = Page::parse(&Query::parse("bucket-region=eu-1").unwrap());
        assert_eq!(region.unwrap_err().code, ErrorCode::NotImplemented);
    }

    #[test]
    fn who_may_not_list_all_sees_what_its_policies_speak_of() {
        let policy = |actions: &str, bucket: &str| {
            format!(
                r#"{{"Statement": {{"Effect": "Allow", "Action": {actions}, "Resource": "arn:aws:s3:::{bucket}"}}}}"#
            )
        };
        let archive = || said("other", &["cold-7"]);
        let lists = listing(&policy(r#""s3:ListBucket""#, "lake"), false, "");
        assert_eq!(shown(&lists, archive()).0, "lake");
        let locates = listing(&policy(r#""s3:GetBucketLocation""#, "*"), false, "");
        assert_eq!(shown(&locates, archive()).0, "cold lake plain zoo");
        let writes = listing("writeonly", false, "");
        let refused = writes.document(vec![(0, said("root", &["plain"]))]);
        assert_eq!(refused.unwrap_err().code, ErrorCode::AccessDenied);
        // Of a page that is empty by its prefix nobody is refused.
        let none = listing(&policy(r#""s3:ListBucket""#, "lake"), false, "prefix=x");
        assert_eq!(shown(&none, archive()).0, "");
    }
}
