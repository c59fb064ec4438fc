//! Which queues to read next, and how much of each.

use rand::Rng;
use tidemill_store::keys::FIRST;

use crate::settings::Order;

/// The queues of a worker with their weights. Behind them, under indices of their own, stand their streams `first`: work that had
/// begun with somebody who died, which is read before the queue's own.
#[derive(Debug, Clone)]
pub(crate) struct Queues {
    names: Vec<String>,
    weights: Vec<u32>,
    order: Order,
}

impl Queues {
    pub(crate) fn new(queues: Vec<(String, u32)>, order: Order) -> Self {
        let (mut names, weights): (Vec<String>, Vec<u32>) = queues.into_iter().unzip();
        let first: Vec<String> = names.iter().map(|name| [name, FIRST].concat()).collect();
        names.extend(first);
        Self { names, weights, order }
    }

    /// The queues themselves.
    pub(crate) fn served(&self) -> &[String] {
        &self.names[..self.weights.len()]
    }

    /// The queues and their streams `first`, by index.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of a queue's stream `first`.
    pub(crate) const fn first_of(&self, queue: usize) -> usize {
        self.weights.len() + queue
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    /// The order in which to try the queues this time: strict as given, else drawn by weight without replacement.
    pub(crate) fn turn(&self, random: &mut impl Rng) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.weights.len()).collect();
        if self.order == Order::Strict || left.len() == 1 {
            return left;
        }
        let mut turn = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let total: u32 = left.iter().map(|index| self.weights[*index]).sum();
            let mut drawn = random.random_range(0..total);
            let place = left.iter().position(|index| {
                let weight = self.weights[*index];
                let hit = drawn < weight;
                drawn = drawn.saturating_sub(weight);
                hit
            });
            turn.push(left.remove(place.unwrap_or(0)));
        }
        turn
    }

    /// How much of `room` each queue of a turn may take: by weight, the rest to the first. A strict order gives all to the first
    /// that has work, so it asks one after the other.
    pub(crate) fn shares(&self, turn: &[usize], room: usize) -> Vec<usize> {
        if self.order == Order::Strict || turn.len() == 1 {
            return turn.iter().map(|_| room).collect();
        }
        let total: u32 = self.weights.iter().sum();
        let share = |index: &usize| (room * self.weights[*index] as usize) / total as usize;
        let mut shares: Vec<usize> = turn.iter().map(share).collect();
        let given: usize = shares.iter().sum();
        shares[0] += room - given;
        shares
    }

    pub(crate) const fn is_strict(&self) -> bool {
        matches!(self.order, Order::Strict)
    }
}

#[cfg(test)]
mod tests {
    use super::Queues;
    use crate::settings::Order;
    use proptest::prelude::*;
    use rand::SeedableRng;

    proptest! {
        #[test]
        fn shares_use_up_the_room_and_every_queue_gets_its_turn(
            weights in proptest::collection::vec(1_u32..50, 1..6), room in 1_usize..5_000, seed: u64,
        ) {
            let named = weights.iter().enumerate().map(|(i, w)| (format!("q{i}"), *w)).collect();
            let queues = Queues::new(named, Order::Weighted);
            let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
            let turn = queues.turn(&mut random);
            let mut sorted = turn.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..weights.len()).collect::<Vec<_>>());
            let shares = queues.shares(&turn, room);
            prop_assert_eq!(shares.iter().sum::<usize>(), room);
        }
    }

    #[test]
    fn a_heavier_queue_comes_first_in_proportion() {
        let queues = Queues::new(vec![("a".to_owned(), 9), ("b".to_owned(), 1)], Order::Weighted);
        let mut random = rand::rngs::SmallRng::seed_from_u64(7);
        let first = (0..10_000).filter(|_| queues.turn(&mut random)[0] == 0).count();
        assert!((8_700..9_300).contains(&first), "{first}");
    }
}
