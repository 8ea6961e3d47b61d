//! Which endpoint takes the next request: the one with the fewest in flight.
//!
//! Ties go to the endpoint that finished a request longest ago, then to chance. A request counts
//! until its answer's body has ended, so long downloads weigh. Choosing and counting are one step
//! under one lock: of two requests that arrive together, the second sees the first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use moat_types::Random;

/// The loads of a fixed set of endpoints, named by their index.
pub struct Balancer {
    loads: Mutex<Loads>,
}

struct Loads {
    endpoints: Vec<Load>,
    /// Counts finished requests. Order is all that ties need, so no clock is read.
    finished: u64,
}

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight.
    pub in_flight: usize,
    /// When its last request finished, as a count over all endpoints; 0: never.
    pub last_finished: u64,
    /// Whether it may be chosen.
    pub usable: bool,
}

impl Balancer {
    /// `count` usable endpoints without load.
    pub fn new(count: usize) -> Self {
        let load = Load {
            usable: true,
            ..Load::default()
        };
        Self {
            loads: Mutex::new(Loads {
                endpoints: vec![load; count],
                finished: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a usable endpoint that is not in `tried` and counts a request on it. `None` if there is
    /// none. Each success must be answered by one [`Self::finish`].
    pub fn begin(&self, tried: &[usize], random: &dyn Random) -> Option<usize> {
        let mut loads = self.lock();
        let chosen = choose(&loads.endpoints, tried, random)?;
        loads.endpoints[chosen].in_flight += 1;
        Some(chosen)
    }

    /// Ends one request on `endpoint`.
    pub fn finish(&self, endpoint: usize) {
        let mut loads = self.lock();
        loads.finished += 1;
        let finished = loads.finished;
        let load = &mut loads.endpoints[endpoint];
        load.in_flight -= 1;
        load.last_finished = finished;
    }

    /// Lets `endpoint` be chosen or not. Requests that run on it are not touched.
    pub fn set_usable(&self, endpoint: usize, usable: bool) {
        self.lock().endpoints[endpoint].usable = usable;
    }

    /// Whether any endpoint may be chosen.
    pub fn any_usable(&self) -> bool {
        self.lock().endpoints.iter().any(|load| load.usable)
    }

    /// The present loads.
    pub fn loads(&self) -> Vec<Load> {
        self.lock().endpoints.clone()
    }
}

/// The rule, without state.
fn choose(loads: &[Load], tried: &[usize], random: &dyn Random) -> Option<usize> {
    let candidates = || {
        loads
            .iter()
            .enumerate()
            .filter(|(index, load)| load.usable && !tried.contains(index))
    };
    let rank = |load: &Load| (load.in_flight, load.last_finished);
    let best = candidates().map(|(_, load)| rank(load)).min()?;
    let mut ties = candidates().filter(|(_, load)| rank(load) == best);
    let (first, _) = ties.next()?;
    let more = ties.clone().count();
    if more == 0 {
        return Some(first);
    }
    // Endpoints tie completely only before their first request has finished, so this is rare.
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    let skip = u64::from_le_bytes(bytes) % (more as u64 + 1);
    match skip {
        0 => Some(first),
        skip => ties.nth(skip as usize - 1).map(|(index, _)| index),
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;
    use proptest::prelude::*;

    use super::*;

    fn load(in_flight: usize, last_finished: u64, usable: bool) -> Load {
        Load {
            in_flight,
            last_finished,
            usable,
        }
    }

    #[test]
    fn a_less_loaded_endpoint_wins_even_if_it_finished_last() {
        let loads = [load(2, 1, true), load(1, 9, true), load(3, 0, true)];
        assert_eq!(choose(&loads, &[], &SystemRandom), Some(1));
    }

    #[test]
    fn equal_loads_go_to_the_one_that_finished_longest_ago() {
        let loads = [load(1, 5, true), load(1, 3, true), load(1, 4, true)];
        assert_eq!(choose(&loads, &[], &SystemRandom), Some(1));
        assert_eq!(choose(&loads, &[1], &SystemRandom), Some(2));
        assert_eq!(choose(&loads, &[0, 1, 2], &SystemRandom), None);
    }

    #[test]
    fn complete_ties_reach_every_endpoint() {
        let loads = [load(0, 0, true); 3];
        let mut seen = [false; 3];
        for _ in 0..200 {
            seen[choose(&loads, &[], &SystemRandom).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        Finish(prop::sample::Index),
        Usable(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Begin),
            2 => any::<prop::sample::Index>().prop_map(Step::Finish),
            1 => (0..5usize, any::<bool>()).prop_map(|(index, usable)| Step::Usable(index, usable)),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens, the chosen endpoint is usable and none that is usable has fewer
        /// requests in flight, and the counts are those of a naive model.
        #[test]
        fn the_chosen_endpoint_always_has_the_fewest_in_flight(steps in steps()) {
            let balancer = Balancer::new(5);
            let mut running: Vec<usize> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin => {
                        let before = balancer.loads();
                        let least = before.iter().filter(|l| l.usable).map(|l| l.in_flight).min();
                        match balancer.begin(&[], &SystemRandom) {
                            Some(chosen) => {
                                prop_assert!(before[chosen].usable);
                                prop_assert_eq!(Some(before[chosen].in_flight), least);
                                running.push(chosen);
                            }
                            None => prop_assert_eq!(least, None),
                        }
                    }
                    Step::Finish(index) if !running.is_empty() => {
                        balancer.finish(running.swap_remove(index.index(running.len())));
                    }
                    Step::Finish(_) => {}
                    Step::Usable(index, usable) => balancer.set_usable(index, usable),
                }
                let loads = balancer.loads();
                for (index, load) in loads.iter().enumerate() {
                    prop_assert_eq!(load.in_flight, running.iter().filter(|r| **r == index).count());
                }
            }
        }
    }

    #[test]
    fn concurrent_requests_spread_evenly() {
        let balancer = Balancer::new(4);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        balancer.begin(&[], &SystemRandom).unwrap();
                    }
                });
            }
        });
        assert!(balancer.loads().iter().all(|load| load.in_flight == 200));
    }
}
