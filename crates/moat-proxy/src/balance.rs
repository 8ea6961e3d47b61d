//! Which endpoint takes the next request: the one with the fewest in flight for its weight.
//!
//! Endpoints of the proxy's own zone come first while one of them is up. Ties go to the endpoint that
//! finished a request longest ago, then to chance. A request counts until its answer's body has
//! ended, so long downloads weigh. Choosing and counting are one step under one lock: of two requests
//! that arrive together, the second sees the first. Ending a request takes no lock.
//!
//! Of many endpoints two are drawn and the better one taken: nearly as even, at a cost that does not
//! grow, and a thousand sidecars do not all run to the one server that is idle at the moment.
//!
//! An endpoint that came back gets little at first and its whole share after the slow start. One that
//! requests ejected, but no probe has found down, is chosen when no other is left: it may well be
//! back, and asking it costs less than an error.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use moat_types::Random;
use tokio::time::Instant;

use crate::config::Balance;

/// From so many endpoints on, two are drawn instead of all compared. Comparing this many takes less
/// time than a system call.
pub const TWO_CHOICES_FROM: usize = 64;
/// How often a pair is drawn before all are looked through, which is needed when most are down.
const DRAWS_MAX: usize = 8;
/// The share that an endpoint begins its slow start with: enough that it is met at all.
const SLOW_START_FLOOR: f64 = 0.1;
/// What one unit of weight counts, so that a part of one can be told during a slow start.
const WEIGHT_UNIT: u64 = 1000;

/// Finished requests of the process. Order is all that ties need, so no clock is read.
static FINISHED: AtomicU64 = AtomicU64::new(0);

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

impl Standing {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Up,
            1 => Self::Ejected,
            _ => Self::Down,
        }
    }
}

/// What a balancer knows of one endpoint.
#[derive(Debug)]
pub struct Slot {
    in_flight: AtomicUsize,
    /// When its last request finished, as a count over all endpoints; 0: never.
    last_finished: AtomicU64,
    standing: AtomicU8,
    /// Milliseconds from `made` to its last return; 0: it never was away.
    returned: AtomicU64,
    made: Instant,
    weight: u32,
    local: bool,
}

impl Slot {
    /// An endpoint that is up, without load. `local`: it stands in the proxy's own zone.
    pub fn new(weight: u32, local: bool) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            last_finished: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::Up as u8),
            returned: AtomicU64::new(0),
            made: Instant::now(),
            weight: weight.max(1),
            local,
        }
    }

    /// Ends one request that [`Balancer::begin`] counted.
    pub fn finish(&self) {
        let finished = FINISHED.fetch_add(1, Relaxed) + 1;
        self.last_finished.store(finished, Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Lets the endpoint be chosen or not. Requests that run on it are not touched. One that was down
    /// and is up begins its slow start.
    pub fn set_standing(&self, standing: Standing) {
        let before = Standing::from_byte(self.standing.swap(standing as u8, Relaxed));
        if before == Standing::Down && standing == Standing::Up {
            let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.returned.store(now.max(1), Relaxed);
        }
    }

    /// Whether it may be chosen.
    pub fn standing(&self) -> Standing {
        Standing::from_byte(self.standing.load(Relaxed))
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    fn load(&self, slow_start: Duration) -> Load {
        Load {
            in_flight: self.in_flight() as u64,
            last_finished: self.last_finished.load(Relaxed),
            standing: self.standing(),
            weight: self.weight_now(slow_start),
            local: self.local,
        }
    }

    fn weight_now(&self, slow_start: Duration) -> u64 {
        let whole = u64::from(self.weight) * WEIGHT_UNIT;
        let returned = self.returned.load(Relaxed);
        if returned == 0 {
            return whole;
        }
        let since = self
            .made
            .elapsed()
            .saturating_sub(Duration::from_millis(returned));
        if since >= slow_start {
            // Over: the next look need not read a clock.
            self.returned.store(0, Relaxed);
            return whole;
        }
        let share = since.as_secs_f64() / slow_start.as_secs_f64();
        ((whole as f64 * share.max(SLOW_START_FLOOR)) as u64).max(1)
    }
}

/// A look at one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    in_flight: u64,
    last_finished: u64,
    standing: Standing,
    /// In thousandths.
    weight: u64,
    local: bool,
}

impl Load {
    /// Smaller is better. Fractions are compared by their cross products, in the order.
    fn is_better_than(&self, other: &Self) -> Option<bool> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let group = |load: &Self| (load.standing, !load.local);
        let order = group(self)
            .cmp(&group(other))
            .then_with(|| {
                let mine = u128::from(self.in_flight + 1) * u128::from(other.weight);
                mine.cmp(&(u128::from(other.in_flight + 1) * u128::from(self.weight)))
            })
            .then(self.last_finished.cmp(&other.last_finished));
        match order {
            Less => Some(true),
            Greater => Some(false),
            Equal => None,
        }
    }
}

/// Chooses among the endpoints of one site.
#[derive(Debug)]
pub struct Balancer {
    turn: Mutex<()>,
    rule: Balance,
    slow_start: Duration,
}

impl Balancer {
    /// A balancer of this rule. `slow_start` is how long a return takes.
    pub const fn new(rule: Balance, slow_start: Duration) -> Self {
        Self {
            turn: Mutex::new(()),
            rule,
            slow_start,
        }
    }

    /// Chooses one of `slots` that `excluded` does not name, and counts a request on it. `None` if there
    /// is none. Each success must be answered by one [`Slot::finish`].
    pub fn begin<'a, S>(
        &self,
        slots: &'a [S],
        excluded: impl Fn(&S) -> bool,
        random: &dyn Random,
    ) -> Option<&'a S>
    where
        S: HasSlot,
    {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |slot: &S| {
            let mut load = slot.slot().load(self.slow_start);
            if self.rule == Balance::Random {
                // What is left to compare is whether and where it stands; the rest is chance.
                (load.in_flight, load.last_finished) = (0, 0);
            }
            (load.standing != Standing::Down && !excluded(slot)).then_some(load)
        };
        let chosen = match slots {
            [only] => look(only).map(|_| only),
            many if many.len() >= TWO_CHOICES_FROM => {
                two_choices(many, look, random).or_else(|| best(many, look, random))
            }
            few => best(few, look, random),
        }?;
        chosen.slot().in_flight.fetch_add(1, Relaxed);
        Some(chosen)
    }
}

/// The best of all; of complete ties, any.
fn best<'a, S>(
    slots: &'a [S],
    look: impl Fn(&S) -> Option<Load>,
    random: &dyn Random,
) -> Option<&'a S> {
    let mut found: Option<(&S, Load)> = None;
    let mut ties = 1;
    // One pass: loads may sink meanwhile, and a second look could find nothing as good as the first.
    for slot in slots {
        let Some(load) = look(slot) else {
            continue;
        };
        let better = match &found {
            None => Some(true),
            Some((_, best)) => load.is_better_than(best),
        };
        match better {
            Some(false) => {}
            Some(true) => {
                found = Some((slot, load));
                ties = 1;
            }
            None => {
                // Of n that tie each is kept with a chance of 1 in n.
                ties += 1;
                if below(ties, random) == 0 {
                    found = Some((slot, load));
                }
            }
        }
    }
    found.map(|(slot, _)| slot)
}

/// The better of two that are up, and of the best zone there is; `None` if such a pair is not soon
/// found. Zones make it look at all: with them most draws may be of the wrong zone.
fn two_choices<'a, S>(
    slots: &'a [S],
    look: impl Fn(&S) -> Option<Load>,
    random: &dyn Random,
) -> Option<&'a S>
where
    S: HasSlot,
{
    if slots.iter().any(|slot| slot.slot().local) {
        return None;
    }
    let draw = || {
        let slot = &slots[below(slots.len(), random)];
        Some((
            slot,
            look(slot).filter(|load| load.standing == Standing::Up)?,
        ))
    };
    for _ in 0..DRAWS_MAX {
        if let (Some((first, one)), Some((second, other))) = (draw(), draw())
            && !std::ptr::eq(first, second)
        {
            let second_is_better = other.is_better_than(&one) == Some(true);
            return Some(if second_is_better { second } else { first });
        }
    }
    None
}

/// A number below `limit`, all equally likely for all that a balancer can tell.
fn below(limit: usize, random: &dyn Random) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % limit as u64) as usize
}

/// Whatever stands for one endpoint.
pub trait HasSlot {
    /// What the balancer knows of it.
    fn slot(&self) -> &Slot;
}

impl HasSlot for Slot {
    fn slot(&self) -> &Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;
    use proptest::prelude::*;

    use super::*;

    const UP: Standing = Standing::Up;
    const NEVER: Duration = Duration::ZERO;

    fn load(in_flight: u64, last_finished: u64, standing: Standing) -> Load {
        Load {
            in_flight,
            last_finished,
            standing,
            weight: WEIGHT_UNIT,
            local: false,
        }
    }

    fn choose(loads: &[Load], excluded: &[usize]) -> Option<usize> {
        let indexes: Vec<_> = (0..loads.len()).collect();
        let look = |index: &usize| {
            let load = loads[*index];
            (load.standing != Standing::Down && !excluded.contains(index)).then_some(load)
        };
        best(&indexes, look, &SystemRandom).copied()
    }

    fn balancer() -> Balancer {
        Balancer::new(Balance::LeastInFlight, NEVER)
    }

    fn begin(balancer: &Balancer, slots: &[Slot]) -> Option<usize> {
        let chosen = balancer.begin(slots, |_| false, &SystemRandom)?;
        slots.iter().position(|slot| std::ptr::eq(slot, chosen))
    }

    #[test]
    fn ejected_endpoints_are_the_last_resort_and_down_ones_are_none() {
        let loads = [
            load(0, 0, Standing::Down),
            load(0, 0, Standing::Ejected),
            load(9, 9, UP),
        ];
        assert_eq!(choose(&loads, &[]), Some(2));
        assert_eq!(choose(&loads, &[2]), Some(1));
        assert_eq!(choose(&loads, &[1, 2]), None);
    }

    #[test]
    fn a_less_loaded_endpoint_wins_even_if_it_finished_last() {
        let loads = [load(2, 1, UP), load(1, 9, UP), load(3, 0, UP)];
        assert_eq!(choose(&loads, &[]), Some(1));
    }

    #[test]
    fn equal_loads_go_to_the_one_that_finished_longest_ago() {
        let loads = [load(1, 5, UP), load(1, 3, UP), load(1, 4, UP)];
        assert_eq!(choose(&loads, &[]), Some(1));
        assert_eq!(choose(&loads, &[1]), Some(2));
        assert_eq!(choose(&loads, &[0, 1, 2]), None);
    }

    #[test]
    fn complete_ties_reach_every_endpoint() {
        let loads = [load(0, 0, UP); 3];
        let mut seen = [0; 3];
        for _ in 0..600 {
            seen[choose(&loads, &[]).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
    }

    #[test]
    fn shares_follow_the_weights() {
        let slots = [Slot::new(1, false), Slot::new(3, false)];
        let balancer = balancer();
        for _ in 0..40 {
            begin(&balancer, &slots).unwrap();
        }
        assert_eq!(slots.each_ref().map(Slot::in_flight), [10, 30]);
    }

    #[test]
    fn the_own_zone_is_used_as_long_as_it_is_up() {
        let slots = [Slot::new(1, false), Slot::new(1, true), Slot::new(1, true)];
        let balancer = balancer();
        for _ in 0..10 {
            begin(&balancer, &slots).unwrap();
        }
        assert_eq!(slots.each_ref().map(Slot::in_flight), [0, 5, 5]);
        slots[1].set_standing(Standing::Down);
        slots[2].set_standing(Standing::Ejected);
        begin(&balancer, &slots).unwrap();
        assert_eq!(slots[0].in_flight(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_returns_gets_its_share_little_by_little() {
        let slots = [Slot::new(1, false), Slot::new(1, false)];
        let balancer = Balancer::new(Balance::LeastInFlight, Duration::from_secs(10));
        slots[1].set_standing(Standing::Down);
        tokio::time::advance(Duration::from_secs(5)).await;
        slots[1].set_standing(UP);
        let share = async || {
            for _ in 0..110 {
                begin(&balancer, &slots).unwrap();
            }
            let share = slots[1].in_flight();
            for slot in &slots {
                while slot.in_flight() > 0 {
                    slot.finish();
                }
            }
            share
        };
        assert_eq!(share().await, 10);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!((30..40).contains(&share().await));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(share().await, 55);
    }

    #[test]
    fn of_many_endpoints_none_is_overrun() {
        let slots: Vec<_> = (0..200).map(|_| Slot::new(1, false)).collect();
        for slot in &slots[..20] {
            slot.set_standing(Standing::Down);
        }
        let balancer = balancer();
        for _ in 0..180 * 50 {
            begin(&balancer, &slots).unwrap();
        }
        let counts: Vec<_> = slots.iter().map(Slot::in_flight).collect();
        assert!(counts[..20].iter().all(|count| *count == 0));
        // By chance alone the largest would be some 70; of two choices it is within a few of the mean.
        assert!(
            counts[20..].iter().all(|count| (40..=58).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn many_endpoints_that_are_nearly_all_down_are_still_found() {
        let slots: Vec<_> = (0..100).map(|_| Slot::new(1, false)).collect();
        for (index, slot) in slots.iter().enumerate() {
            if index != 77 {
                slot.set_standing(Standing::Down);
            }
        }
        assert_eq!(begin(&balancer(), &slots), Some(77));
        slots[77].set_standing(Standing::Down);
        assert_eq!(begin(&balancer(), &slots), None);
    }

    #[test]
    fn the_random_rule_takes_no_account_of_load_but_of_standing() {
        let slots = [
            Slot::new(1, false),
            Slot::new(1, false),
            Slot::new(1, false),
        ];
        slots[2].set_standing(Standing::Down);
        let balancer = Balancer::new(Balance::Random, NEVER);
        for _ in 0..400 {
            begin(&balancer, &slots).unwrap();
        }
        let [a, b, c] = slots.each_ref().map(Slot::in_flight);
        assert_eq!((a + b, c), (400, 0));
        // Least in flight would give exactly 200 each; this once in 25 runs, and the bounds never fail.
        assert!((120..=280).contains(&a), "{a}");
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
        /// Whatever happens, no endpoint of the chosen one's standing and zone has fewer requests in
        /// flight for its weight, none of a better group was left aside, and the counts are those of a
        /// naive model.
        #[test]
        fn the_chosen_endpoint_always_has_the_fewest_in_flight(
            steps in steps(),
            kinds in prop::array::uniform5((1..4u32, any::<bool>())),
        ) {
            let slots = kinds.map(|(weight, local)| Slot::new(weight, local));
            let balancer = balancer();
            let mut running: Vec<usize> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin => {
                        // Thirds and halves of small numbers: sixths tell all of them apart exactly.
                        let rank = |at: usize| {
                            let (weight, local) = kinds[at];
                            let sixths = (slots[at].in_flight() + 1) * 6 / weight as usize;
                            (slots[at].standing(), !local, sixths)
                        };
                        let may = (0..5).filter(|at| slots[*at].standing() != Standing::Down);
                        let least = may.map(rank).min();
                        let before: Vec<_> = (0..5).map(rank).collect();
                        match begin(&balancer, &slots) {
                            Some(chosen) => {
                                prop_assert_eq!(Some(before[chosen]), least);
                                running.push(chosen);
                            }
                            None => prop_assert_eq!(least, None),
                        }
                    }
                    Step::Finish(index) if !running.is_empty() => {
                        slots[running.swap_remove(index.index(running.len()))].finish();
                    }
                    Step::Finish(_) => {}
                    Step::Stand(index, standing) => slots[index].set_standing(standing),
                }
                for (index, slot) in slots.iter().enumerate() {
                    prop_assert_eq!(slot.in_flight(), running.iter().filter(|r| **r == index).count());
                }
            }
        }
    }

    #[test]
    fn concurrent_requests_spread_evenly() {
        let slots: [Slot; 4] = std::array::from_fn(|_| Slot::new(1, false));
        let balancer = balancer();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        begin(&balancer, &slots).unwrap();
                    }
                });
            }
        });
        assert!(slots.iter().all(|slot| slot.in_flight() == 200));
    }
}
