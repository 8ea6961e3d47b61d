//! Which endpoint takes the next request: the one with the fewest in flight.
//!
//! Ties go to the endpoint that finished a request longest ago, then to chance. A request counts
//! until its answer's body has ended, so long downloads weigh. Choosing and counting are one step
//! under one lock: of two requests that arrive together, the second sees the first.
//!
//! An endpoint that requests ejected, but no probe has found down, is chosen when no other is left:
//! it may well be back, and asking it costs less than an error.

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
    pub standing: Standing,
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Like any other.
    #[default]
    Up,
    /// If there is no other.
    Ejected,
    /// Not.
    Down,
}

impl Balancer {
    /// `count` endpoints that are up, without load.
    pub fn new(count: usize) -> Self {
        Self {
            loads: Mutex::new(Loads {
                endpoints: vec![Load::default(); count],
                finished: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses an endpoint that is not in `tried` and counts a request on it. `None` if there is
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
    pub fn set_standing(&self, endpoint: usize, standing: Standing) {
        self.lock().endpoints[endpoint].standing = standing;
    }

    /// Whether any endpoint is up.
    pub fn any_up(&self) -> bool {
        let up = |load: &Load| load.standing == Standing::Up;
        self.lock().endpoints.iter().any(up)
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
            .filter(|(index, load)| load.standing != Standing::Down && !tried.contains(index))
    };
    let rank = |load: &Load| (load.standing, load.in_flight, load.last_finished);
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

    const UP: Standing = Standing::Up;

    fn load(in_flight: usize, last_finished: u64, standing: Standing) -> Load {
        Load {
            in_flight,
            last_finished,
            standing,
        }
    }

    #[test]
    fn ejected_endpoints_are_the_last_resort_and_down_ones_are_none() {
        let loads = [
            load(0, 0, Standing::Down),
            load(0, 0, Standing::Ejected),
            load(9, 9, UP),
        ];
        assert_eq!(choose(&loads, &[], &SystemRandom), Some(2));
        assert_eq!(choose(&loads, &[2], &SystemRandom), Some(1));
        assert_eq!(choose(&loads, &[1, 2], &SystemRandom), None);
    }

    #[test]
    fn a_less_loaded_endpoint_wins_even_if_it_finished_last() {
        let loads = [load(2, 1, UP), load(1, 9, UP), load(3, 0, UP)];
        assert_eq!(choose(&loads, &[], &SystemRandom), Some(1));
    }

    #[test]
    fn equal_loads_go_to_the_one_that_finished_longest_ago() {
        let loads = [load(1, 5, UP), load(1, 3, UP), load(1, 4, UP)];
        assert_eq!(choose(&loads, &[], &SystemRandom), Some(1));
        assert_eq!(choose(&loads, &[1], &SystemRandom), Some(2));
        assert_eq!(choose(&loads, &[0, 1, 2], &SystemRandom), None);
    }

    #[test]
    fn complete_ties_reach_every_endpoint() {
        let loads = [load(0, 0, UP); 3];
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
        Stand(usize, Standing),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Begin),
            2 => any::<prop::sample::Index>().prop_map(Step::Finish),
            1 => (0..5usize, prop::sample::select(vec![UP, Standing::Ejected, Standing::Down]))
                .prop_map(|(index, standing)| Step::Stand(index, standing)),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens, no endpoint of the chosen one's standing has fewer requests in flight,
        /// none of a better standing was left aside, and the counts are those of a naive model.
        #[test]
        fn the_chosen_endpoint_always_has_the_fewest_in_flight(steps in steps()) {
            let balancer = Balancer::new(5);
            let mut running: Vec<usize> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin => {
                        let before = balancer.loads();
                        let may = before.iter().filter(|l| l.standing != Standing::Down);
                        let least = may.map(|l| (l.standing, l.in_flight)).min();
                        match balancer.begin(&[], &SystemRandom) {
                            Some(chosen) => {
                                let load = before[chosen];
                                prop_assert_eq!(Some((load.standing, load.in_flight)), least);
                                running.push(chosen);
                            }
                            None => prop_assert_eq!(least, None),
                        }
                    }
                    Step::Finish(index) if !running.is_empty() => {
                        balancer.finish(running.swap_remove(index.index(running.len())));
                    }
                    Step::Finish(_) => {}
                    Step::Stand(index, standing) => balancer.set_standing(index, standing),
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
