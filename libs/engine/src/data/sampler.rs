//! Which records make up a step: a pure function of seed, round, worker and step.
//!
//! Records are drawn without replacement until each was seen, then in a new order. A job that
//! counts its steps through all rounds and keeps `round` at 0 sees every record before any twice;
//! one that names the round starts a new order in each.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Dataset, Error};

/// The order of records within a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// A new order in each pass.
    #[default]
    Shuffled,
    /// As in the file.
    File,
}

/// What a batch is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Whatever comes.
    #[default]
    None,
    /// Equal shares of each completion or label; rarer ones repeat sooner.
    Label,
}

/// How to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerOptions {
    /// Records in a batch.
    pub batch: usize,
    /// The order within a pass.
    pub order: Order,
    /// The make-up of a batch.
    pub balance: Balance,
}

/// What a stream of random numbers derives from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The job's `training.seed`.
    pub seed: u64,
    /// The round.
    pub round: u32,
    /// The worker's name.
    pub worker: String,
}

/// One drawn record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Its number in the data set.
    pub record: usize,
    /// How many passes over the records (of its class) came before.
    pub pass: u64,
}

/// A pass and its order.
type Made = (u64, Arc<Vec<u32>>);

/// Records that are drawn from, in file order.
#[derive(Debug)]
enum Group {
    /// All of the data set, so many: nothing is held for them.
    All(usize),
    /// These.
    Of(Vec<u32>),
}

/// An endless sequence of batches, any of which can be asked for.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    /// One for each class that is balanced. Never empty.
    groups: Vec<Group>,
    key: [u8; 32],
    /// The last order made for each group, with its pass.
    orders: Mutex<Vec<Option<Made>>>,
}

impl Sampler {
    /// Draws from the selected records (ascending numbers), or from all.
    ///
    /// # Errors
    /// [`Error::NothingToDraw`]; [`Error::NoClasses`] where balance is asked of records without
    /// classes; [`Error::NoSuchRecord`] for a selection beyond the data set.
    pub fn new(
        dataset: &Dataset,
        selection: Option<&[usize]>,
        options: SamplerOptions,
        seed: &Seed,
    ) -> Result<Self, Error> {
        let mut groups = match (selection, options.balance) {
            (None, Balance::None) => vec![Group::All(dataset.len())],
            _ => Group::listed(dataset, selection, options.balance)?,
        };
        groups.retain(|group| group.len() > 0);
        if groups.is_empty() || options.batch == 0 {
            return Err(Error::NothingToDraw {
                batch: options.batch,
                records: groups.iter().map(Group::len).sum(),
            });
        }
        Ok(Self {
            options,
            orders: Mutex::new(vec![None; groups.len()]),
            groups,
            key: seed.key(),
        })
    }

    /// Record numbers of a step's batch.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let draws = self.draws(step).into_iter();
        draws.map(|draw| draw.record).collect()
    }

    /// A step's batch, each record with its pass.
    pub fn draws(&self, step: u64) -> Vec<Draw> {
        (0..self.options.batch)
            .map(|slot| {
                let (group, number) = self.place(step, slot);
                self.draw(group, number)
            })
            .collect()
    }

    /// The draw of this number, counted through all batches: its batch, its place there, and the record.
    pub(super) fn nth(&self, draw: u64) -> (u64, usize, Draw) {
        let batch = u64::try_from(self.options.batch).unwrap_or(u64::MAX).max(1);
        // Invariant: what is left of a division by a `usize` is one.
        let (step, slot) = (
            draw / batch,
            usize::try_from(draw % batch).unwrap_or_default(),
        );
        let (group, number) = self.place(step, slot);
        (step, slot, self.draw(group, number))
    }

    /// A record to take a refused one's place: of the same class, and again a pure function of its
    /// arguments.
    pub(super) fn spare(&self, step: u64, slot: usize, attempt: u64) -> Draw {
        let (group, number) = self.place(step, slot);
        match self.options.order {
            Order::File => self.draw(group, number.saturating_add(attempt + 1)),
            Order::Shuffled => {
                let slot = u64::try_from(slot).unwrap_or(u64::MAX);
                let mut random = self.random("spare", &[step, slot, attempt]);
                let length = self.groups.get(group).map_or(1, Group::len);
                let bound = u32::try_from(length).unwrap_or(u32::MAX);
                let pass = self.draw(group, number).pass;
                let place = below(&mut random, bound);
                let number = pass.saturating_mul(u64::from(bound));
                self.draw(group, number.saturating_add(u64::from(place)))
            }
        }
    }

    /// The group that a slot draws from, and its how-manieth draw that is.
    fn place(&self, step: u64, slot: usize) -> (usize, u64) {
        let [batch, slot, groups] = [self.options.batch, slot, self.groups.len()]
            .map(|number| u64::try_from(number).unwrap_or(u64::MAX));
        let draw = step.saturating_mul(batch).saturating_add(slot);
        let group = usize::try_from(draw % groups).unwrap_or_default();
        (group, draw / groups)
    }

    fn draw(&self, group: usize, number: u64) -> Draw {
        // Invariant: groups are never empty, and `group` is one of them.
        let records = self.groups.get(group);
        let count = records.map_or(0, Group::len);
        let length = u64::try_from(count).unwrap_or(u64::MAX).max(1);
        let (pass, place) = (number / length, number % length);
        let place = usize::try_from(place).unwrap_or_default();
        let place = match self.options.order {
            Order::File => Some(place),
            Order::Shuffled => {
                let order = self.order(group, pass, count);
                order
                    .get(place)
                    .and_then(|place| usize::try_from(*place).ok())
            }
        };
        let record = records.zip(place);
        let record = record.and_then(|(records, place)| records.get(place));
        Draw {
            record: record.unwrap_or_default(),
            pass,
        }
    }

    /// The group's order in a pass; made once, then kept until another is asked for.
    fn order(&self, group: usize, pass: u64, length: usize) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some((kept, order))) = orders.get(group)
            && *kept == pass
        {
            return Arc::clone(order);
        }
        // The last pass's makes room for it.
        let slot = orders.get_mut(group).map(|slot| {
            *slot = None;
            slot
        });
        let class = u64::try_from(group).unwrap_or(u64::MAX);
        let mut random = self.random("pass", &[class, pass]);
        let order = Arc::new(shuffled(&mut random, length));
        if let Some(slot) = slot {
            *slot = Some((pass, Arc::clone(&order)));
        }
        order
    }

    fn random(&self, purpose: &str, numbers: &[u64]) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(purpose.as_bytes());
        for number in numbers {
            hash.update(number.to_le_bytes());
        }
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

impl Group {
    /// The selected records (ascending numbers), or all, by their class where classes are balanced.
    fn listed(
        dataset: &Dataset,
        selection: Option<&[usize]>,
        balance: Balance,
    ) -> Result<Vec<Self>, Error> {
        let mut groups = match balance {
            Balance::None => {
                let count = selection.map_or(dataset.len(), <[usize]>::len);
                vec![Vec::with_capacity(count)]
            }
            Balance::Label => {
                vec![Vec::new(); dataset.classes().ok_or(Error::NoClasses)?.len()]
            }
        };
        let mut add = |record: usize| -> Result<(), Error> {
            let missing = || Error::NoSuchRecord {
                record,
                records: dataset.len(),
            };
            let number = u32::try_from(record).ok();
            let number = number
                .filter(|_| record < dataset.len())
                .ok_or_else(missing)?;
            let class = match balance {
                Balance::None => 0,
                Balance::Label => dataset.class_of(record).ok_or(Error::NoClasses)?,
            };
            groups.get_mut(class).ok_or(Error::NoClasses)?.push(number);
            Ok(())
        };
        match selection {
            Some(selection) => selection.iter().try_for_each(|record| add(*record))?,
            None => (0..dataset.len()).try_for_each(add)?,
        }
        groups.iter_mut().for_each(Vec::shrink_to_fit);
        Ok(groups.into_iter().map(Self::Of).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::All(count) => *count,
            Self::Of(records) => records.len(),
        }
    }

    /// The number of the record at a place.
    fn get(&self, place: usize) -> Option<usize> {
        match self {
            Self::All(count) => (place < *count).then_some(place),
            Self::Of(records) => usize::try_from(*records.get(place)?).ok(),
        }
    }
}

impl Seed {
    /// A number for another stream of random numbers, such as `dropout`.
    #[must_use]
    pub fn number(&self, purpose: &str) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.key());
        hash.update(purpose.as_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// SHA-256 over the parts, each of fixed length or with its length before it.
    fn key(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"fedpipe.sampler.1");
        hash.update(self.seed.to_le_bytes());
        hash.update(self.round.to_le_bytes());
        hash.update(
            u64::try_from(self.worker.len())
                .unwrap_or(u64::MAX)
                .to_le_bytes(),
        );
        hash.update(self.worker.as_bytes());
        hash.finalize().into()
    }
}

/// 0 to `length` in random order (Fisher and Yates).
fn shuffled(random: &mut ChaCha8Rng, length: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(length).collect();
    for last in (1..length).rev() {
        let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
        let other = usize::try_from(below(random, bound)).unwrap_or_default();
        order.swap(last, other);
    }
    order
}

/// A number below the bound, each equally likely (Lemire, arXiv 1805.10941).
fn below(random: &mut ChaCha8Rng, bound: u32) -> u32 {
    let bound = u64::from(bound.max(1));
    let rejected = (1 << 32) % bound;
    loop {
        let product = u64::from(random.next_u32()) * bound;
        if product & 0xffff_ffff >= rejected {
            return u32::try_from(product >> 32).unwrap_or_default();
        }
    }
}
