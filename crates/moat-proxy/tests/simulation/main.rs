//! A whole proxy on virtual time, over a network in memory, with stores that come and go as a seed says.
//!
//! Everything that chooses draws from the seed, and one thread runs it all, so a seed is a history: it
//! can be run again. A failure prints its seed; `MOAT_SIM_SEED=N` runs that one alone and tells what
//! happens, `MOAT_SIM_SEEDS=N` runs more of them.
//!
//! Guards: reads never fail while any site has a store that is well; no write is acted on twice, and one
//! that was acknowledged was acted on; what is down or frozen is noticed, what is well again is used
//! again; a preferred site gets its requests back once, after a while; in the end the load is even and no
//! count is left over; a drain ends what runs and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "helpers of tests; a seed must be seen"
)]

mod clients;
mod world;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moat_proxy::status::AddressState;
use moat_proxy::{Config, Proxy, SiteConfig, Upstream};
use tokio::time::{Instant, sleep};

use clients::Clients;
use world::{Condition, Node, Seeded, Shown};

/// Seeds of a usual run: some seconds.
const SEEDS: u64 = 6;
/// For how long stores come and go.
const TROUBLE: Duration = Duration::from_secs(300);
/// Then all of them are well. The longest quarantine is 37.5 s, and a site is given its requests back
/// 30 s after that.
const RECOVERY: Duration = Duration::from_secs(90);
/// And for so long all must be as it should.
const PEACE: Duration = Duration::from_secs(40);
/// Two failed checks of a store that was up: two waits of at most 6.25 s and two answers of at most 3 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// A reload begins its checks anew, and keeps what was counted: one at once, and one after a wait.
const NOTICED_AFTER_RELOAD: Duration = Duration::from_secs(13);
/// The longest quarantine, and a check.
const BACK_WITHIN: Duration = Duration::from_secs(42);
const FAIL_BACK_AFTER: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);

/// The first three are the preferred site, the last one is the other and never falls ill.
const NODES: usize = 4;

struct Simulation {
    proxy: Arc<Proxy>,
    nodes: Vec<Arc<Node>>,
    random: Arc<Seeded>,
    config: Config,
    reloaded: Mutex<Instant>,
    told: Told,
}

/// What happened, in its order.
#[derive(Clone)]
pub(crate) struct Told {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
    aloud: bool,
}

impl Told {
    pub(crate) fn add(&self, line: &str) {
        let line = format!("{:>8} ms  {line}", self.began.elapsed().as_millis());
        if self.aloud {
            eprintln!("{line}");
        }
        self.lines.lock().unwrap().push(line);
    }
}

impl Simulation {
    fn new(seed: u64, aloud: bool) -> Self {
        let random = Seeded::new(seed);
        let nodes: Vec<_> = (0..NODES).map(|name| Node::new(name, &random)).collect();
        let upstream = |node: &Arc<Node>| {
            let url = format!("http://{}:9000", node.host());
            Upstream::parse(&url).unwrap()
        };
        let site = |nodes: &[Arc<Node>]| SiteConfig::new(nodes.iter().map(upstream).collect());
        let (preferred, other) = nodes.split_at(NODES - 1);
        let mut config = Config::of_sites(vec![site(preferred), site(other)]);
        config.random = Arc::clone(&random) as _;
        config.dialer = Some(world::dialer(&nodes));
        config.fail_back_after = FAIL_BACK_AFTER;
        let lines = Arc::default();
        Self {
            proxy: Arc::new(Proxy::new(config.clone()).unwrap()),
            nodes,
            random,
            config,
            reloaded: Mutex::new(Instant::now()),
            told: Told {
                began: Instant::now(),
                lines,
                aloud,
            },
        }
    }

    async fn run(&self) {
        let draining = Arc::new(Shown::new(false));
        let clients = Clients::start(
            &self.proxy,
            &self.nodes,
            &self.random,
            &self.told,
            &draining,
        );
        tokio::select! {
            biased;
            () = self.look() => unreachable!("it looks for ever"),
            () = async {
                self.trouble().await;
                sleep(RECOVERY).await;
                self.peace(&clients).await;
            } => {}
        }
        self.proxy.begin_to_drain();
        assert!(!self.proxy.is_ready());
        draining.set(true);
        clients.finish().await;
        self.check_the_end(&clients);
    }

    /// Stores fall ill, alone or together, and recover; now and then the configuration is read again.
    async fn trouble(&self) {
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            sleep(self.random.millis(200, 12_000)).await;
            if self.random.below(8) == 0 {
                self.told.add("reload");
                self.proxy.reload(self.config.clone()).unwrap();
                *self.reloaded.lock().unwrap() = Instant::now();
                continue;
            }
            let node = &self.nodes[self.random.below(NODES as u64 - 1) as usize];
            let condition = self.next_condition(node);
            self.told.add(&format!("node {} {condition:?}", node.name));
            node.set(condition);
        }
        for node in &self.nodes {
            node.set(Condition::Well);
        }
        self.told.add("all are well");
    }

    /// A read may be sent four times, so of those that swallow requests there is one at a time. Any
    /// number may be down: that costs nothing but a refused connection.
    fn next_condition(&self, node: &Node) -> Condition {
        if node.condition() != Condition::Well {
            return Condition::Well;
        }
        let swallows =
            |node: &Arc<Node>| matches!(node.condition(), Condition::Frozen | Condition::Closing);
        match self.random.below(6) {
            0 if !self.nodes.iter().any(swallows) => Condition::Frozen,
            1 if !self.nodes.iter().any(swallows) => Condition::Closing,
            2 => Condition::Busy,
            _ => Condition::Down,
        }
    }

    /// Looks every second whether the proxy knows what it could know.
    async fn look(&self) {
        let mut site_up_for = Duration::ZERO;
        let mut active_before = Some(1);
        loop {
            sleep(TICK).await;
            let status = self.proxy.status();
            let reloaded = self.reloaded.lock().unwrap().elapsed();
            assert!(status.ready);
            let endpoints = status.sites.iter().flat_map(|site| &site.endpoints);
            for (node, endpoint) in self.nodes.iter().zip(endpoints) {
                let state = endpoint.addresses[0].state;
                match node.condition_for() {
                    (Condition::Down | Condition::Frozen, since)
                        if since > NOTICED_WITHIN && reloaded > NOTICED_AFTER_RELOAD =>
                    {
                        assert_ne!(state, AddressState::Up, "node {}", node.name);
                    }
                    (Condition::Well, since) if since > BACK_WITHIN => {
                        assert_eq!(state, AddressState::Up, "node {}", node.name);
                    }
                    _ => {}
                }
            }
            if status.active_site != active_before {
                self.told
                    .add(&format!("active site {:?}", status.active_site));
                if status.active_site == Some(1) {
                    assert!(
                        site_up_for + TICK >= FAIL_BACK_AFTER,
                        "given back after {site_up_for:?}"
                    );
                }
                active_before = status.active_site;
            }
            site_up_for = if status.sites[0].up {
                site_up_for + TICK
            } else {
                Duration::ZERO
            };
        }
    }

    /// All is well: nothing fails, and the preferred site has everything in even shares.
    async fn peace(&self, clients: &Clients) {
        let served = || {
            self.nodes
                .iter()
                .map(|node| node.served())
                .collect::<Vec<_>>()
        };
        let (before, failures) = (served(), clients.failures());
        assert_eq!(self.proxy.status().active_site, Some(1));
        sleep(PEACE).await;
        assert_eq!(clients.failures(), failures, "a request failed in peace");
        let after = served();
        let shares: Vec<_> = after
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        assert_eq!(shares[NODES - 1], 0, "{shares:?}");
        let mean = shares.iter().sum::<usize>() / (NODES - 1);
        for share in &shares[..NODES - 1] {
            assert!(
                (mean * 8 / 10..=mean * 12 / 10).contains(share),
                "{shares:?}"
            );
        }
    }

    fn check_the_end(&self, clients: &Clients) {
        let status = self.proxy.status();
        for endpoint in status.sites.iter().flat_map(|site| &site.endpoints) {
            assert_eq!(endpoint.in_flight(), 0, "{}", endpoint.endpoint);
        }
        clients.check_writes(&self.nodes);
    }
}

/// Runs one history. Returns what happened in it.
fn run(seed: u64, aloud: bool) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let simulation = Simulation::new(seed, aloud);
            simulation.run().await;
            let lines = simulation.told.lines.lock().unwrap();
            lines.clone()
        })
    }));
    outcome.unwrap_or_else(|panic| {
        eprintln!("the simulation failed; run it again with MOAT_SIM_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn histories_of_failing_stores_hold_what_the_proxy_promises() {
    if let Some(seed) = number_of("MOAT_SIM_SEED") {
        run(seed, true);
        return;
    }
    let seeds = number_of("MOAT_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in 1..=seeds {
        run(seed, false);
    }
}

#[test]
fn a_seed_is_one_history() {
    let hash = |lines: Vec<String>| {
        let mut hasher = DefaultHasher::new();
        lines.hash(&mut hasher);
        (lines.len(), hasher.finish())
    };
    let seed = number_of("MOAT_SIM_SEED").unwrap_or(1);
    let first = hash(run(seed, false));
    assert_eq!(hash(run(seed, false)), first);
    assert_ne!(hash(run(seed + 1, false)), first);
}
