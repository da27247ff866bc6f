//! Which run comes when. Pure: the same plan has the same order, always.

use serde::{Deserialize, Serialize};
use spark_trace_statistics::bootstrap::random::Xoshiro256;

use super::plan::{Order, Plan};

/// One run of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// From 1, in the order of running.
    pub number: u32,
    pub environment: String,
    pub model: String,
    /// From 1 within its cell; of a warm-up among the warm-ups.
    pub iteration: u32,
    pub warmup: bool,
    /// Runs of one round are next to each other and make pairs.
    pub round: Option<u32>,
}

impl Slot {
    /// Where one attempt at it is kept, below the study's folder.
    pub fn folder(&self, attempt: u32) -> String {
        format!("runs/{:04}-{attempt}-{}-{}", self.number, self.environment, self.model)
    }
}

pub fn schedule(plan: &Plan) -> Vec<Slot> {
    let mut slots: Vec<Slot> = vec![];
    let mut random = Xoshiro256::new(plan.seed);
    for model in &plan.models {
        let mut add = |environment: usize, iteration: u32, warmup: bool, round: Option<u32>| {
            let number = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_add(1);
            let environment = plan.environments[environment].name.clone();
            slots.push(Slot { number, environment, model: model.name.clone(), iteration, warmup, round });
        };
        let environments: Vec<usize> = (0..plan.environments.len()).collect();
        for iteration in 1..=plan.warmups {
            environments.iter().for_each(|&environment| add(environment, iteration, true, None));
        }
        if plan.order == Order::Blocked {
            for &environment in &environments {
                (1..=plan.runs).for_each(|iteration| add(environment, iteration, false, None));
            }
            continue;
        }
        let mut squares: Vec<Vec<usize>> = vec![];
        for round in 1..=plan.runs {
            let mut order = environments.clone();
            match plan.order {
                Order::Balanced if environments.len() > 2 => {
                    if squares.is_empty() {
                        squares = williams(environments.len(), &mut random);
                    }
                    order = squares.pop().unwrap_or(order);
                }
                // A steady drift then hits all environments alike, over two rounds.
                Order::Balanced | Order::Abba if round % 2 == 0 => order.reverse(),
                Order::Randomized => shuffle(&mut order, &mut random),
                Order::Balanced | Order::Abba | Order::Blocked => {}
            }
            order.into_iter().for_each(|environment| add(environment, round, false, Some(round)));
        }
    }
    slots
}

/// Rounds in which each of `count` environments stands in each place equally often, and follows each other one equally often
/// (Williams 1949): `count` rounds where it is even, twice as many where it is odd. Which environment is which, and which
/// round comes first, is random.
fn williams(count: usize, random: &mut Xoshiro256) -> Vec<Vec<usize>> {
    // 0, n - 1, 1, n - 2, ...: the steps between neighbours are all different.
    let first: Vec<usize> =
        (0..count).map(|place| if place % 2 == 0 { place / 2 } else { count - 1 - place / 2 }).collect();
    let mut labels: Vec<usize> = (0..count).collect();
    shuffle(&mut labels, random);
    let row =
        |shift: usize| first.iter().map(|place| labels[(place + shift) % count]).collect::<Vec<usize>>();
    let mut rows: Vec<Vec<usize>> = (0..count).map(row).collect();
    if count % 2 == 1 {
        let mirrored: Vec<Vec<usize>> = rows.iter().map(|row| row.iter().rev().copied().collect()).collect();
        rows.extend(mirrored);
    }
    shuffle(&mut rows, random);
    rows
}

/// Fisher and Yates: every order is as likely as the others.
fn shuffle<T>(order: &mut [T], random: &mut Xoshiro256) {
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(order: &str, environments: usize) -> Plan {
        let names =
            (0..environments).map(|n| format!("[[environments]]\nname = \"e{n}\"\nkind = \"native\"\n"));
        let text = format!(
            "name = \"p\"\norder = \"{order}\"\nseed = 7\nruns = 4\nwarmups = 1\n{}\n[[models]]\nname = \"m\"\n\
             [[models]]\nname = \"n\"\n[workload]\ncommand = [\"true\"]\n",
            names.collect::<String>()
        );
        Plan::parse(&text).unwrap()
    }

    #[test]
    fn in_a_square_each_environment_has_each_place_and_each_neighbour_equally_often() {
        for count in 3..=9 {
            let rows = williams(count, &mut Xoshiro256::new(count as u64));
            let times = if count % 2 == 0 { 1 } else { 2 };
            assert_eq!(rows.len(), count * times);
            let mut places = vec![vec![0; count]; count];
            let mut after = vec![vec![0; count]; count];
            for row in &rows {
                row.iter().enumerate().for_each(|(place, &one)| places[one][place] += 1);
                row.windows(2).for_each(|pair| after[pair[0]][pair[1]] += 1);
            }
            assert!(places.iter().flatten().all(|&n| n == times), "{count}: {places:?}");
            for (one, row) in after.iter().enumerate() {
                for (other, &n) in row.iter().enumerate() {
                    assert_eq!(n, if one == other { 0 } else { times }, "{count}: {after:?}");
                }
            }
        }
    }

    #[test]
    fn balanced_is_abba_for_two_and_squares_for_more() {
        assert_eq!(order(&plan("balanced", 2)), "01100110");
        let plan = plan("balanced", 8);
        let order = order(&plan);
        for round in order.as_bytes().chunks(8) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, b"01234567");
        }
        assert_eq!(schedule(&plan), schedule(&plan));
    }

    fn order(plan: &Plan) -> String {
        let measured = schedule(plan).into_iter().filter(|slot| !slot.warmup && slot.model == "m");
        measured.map(|slot| slot.environment.trim_start_matches('e').to_owned()).collect()
    }

    #[test]
    fn rounds_turn_round() {
        assert_eq!(order(&plan("abba", 2)), "01100110");
        assert_eq!(order(&plan("abba", 3)), "012210012210");
        assert_eq!(order(&plan("blocked", 2)), "00001111");
    }

    #[test]
    fn a_random_order_has_each_environment_once_in_a_round_and_is_the_same_again() {
        let plan = plan("randomized", 3);
        for round in order(&plan).as_bytes().chunks(3) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, b"012");
        }
        assert_eq!(schedule(&plan), schedule(&plan));
        let another = Plan { seed: 8, ..plan.clone() };
        assert_ne!(order(&plan), order(&another));
    }

    #[test]
    fn numbers_count_on_and_warmups_come_first() {
        let slots = schedule(&plan("abba", 2));
        assert!(slots.iter().zip(1..).all(|(slot, number)| slot.number == number));
        let warm: Vec<_> = slots.iter().map(|slot| slot.warmup).collect();
        assert_eq!(warm[..3], [true, true, false]);
        assert_eq!(slots.len(), 2 * (2 + 8));
    }
}
