//! Whether an adapter is exactly what a rank table demands. Nothing is dropped silently: a missing
//! key, an extra key, a wrong shape and a number that is not finite are each refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use domain::adapter::{HeadShape, RankTable, WeightName, WeightShape};
use domain::cause::Trouble;
use domain::job::aggregation::Trains;

use super::head;
use super::source::{Below, Source, is_disk};

/// Keys that an error names at most.
const NAMED: usize = 3;

/// Why an adapter is not what was demanded.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Keys are missing, or there are some that nobody asked for.
    #[error("the adapter's keys differ from the plan's:{0}")]
    Keys(Keys),
    /// A tensor of another shape.
    #[error("tensor {key} has shape {found:?} instead of {expected:?}")]
    Shape {
        /// Which tensor.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape demanded.
        expected: [usize; 2],
    },
    /// NaN or an infinity.
    #[error("tensor {key} holds a number that is not finite, at position {at}")]
    NotFinite {
        /// Which tensor.
        key: String,
        /// Index of the first one, counted row by row.
        at: usize,
    },
    /// A change whose Frobenius norm, over all weights together, passes the job's bound.
    #[error("its change has norm {norm}, the job's aggregation.norm_bound is {bound}")]
    Norm {
        /// Its norm.
        norm: f64,
        /// The bound.
        bound: f64,
    },
    /// A tensor that cannot be read.
    #[error("tensor {key} cannot be read")]
    Unreadable {
        /// Which tensor.
        key: String,
        /// What lies below.
        source: Below,
    },
    /// The plan's table names a weight that the model does not have.
    #[error("the model has no weight {weight}")]
    UnknownWeight {
        /// Which weight.
        weight: WeightName,
    },
}

impl Refused {
    /// Whether it is our own disk's doing and says nothing of the adapter.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if is_disk(source))
    }

    /// What this is for the site that it came from.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::NotFinite { .. } => Trouble::NotFinite,
            Self::Keys(_) | Self::Shape { .. } | Self::Norm { .. } => Trouble::UpdateRefused,
            Self::Unreadable { .. } | Self::UnknownWeight { .. } => Trouble::Internal,
        }
    }
}

/// How an adapter's keys differ from the ones demanded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Demanded and absent.
    pub missing: Vec<String>,
    /// Present and not demanded, cut to 120 characters.
    pub extra: Vec<String>,
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, keys) in [("missing", &self.missing), ("extra", &self.extra)] {
            if keys.is_empty() {
                continue;
            }
            write!(f, " {} {what}", keys.len())?;
            for key in keys.iter().take(NAMED) {
                write!(f, " {key}")?;
            }
            if keys.len() > NAMED {
                f.write_str(" …")?;
            }
        }
        Ok(())
    }
}

/// Checks an update before it counts: exactly the keys of `ranks` (of A and B, or of B alone), shapes
/// `[rank, in]` and `[out, rank]`, finite numbers. Shapes are compared before anything is read; one tensor
/// is in memory at a time. How far the update moved is [`super::norm`]'s.
///
/// # Errors
/// The first thing that is wrong, with the tensor's name.
pub fn check(
    update: &dyn Source,
    ranks: &RankTable,
    weights: &[WeightShape],
    trained: Trains,
) -> Result<(), Refused> {
    check_with_head(update, (ranks, None), weights, trained)
}

/// Like [`check`], of an update that holds exactly this head as well, if there is one.
///
/// # Errors
/// As [`check`].
pub fn check_with_head(
    update: &dyn Source,
    (ranks, head): (&RankTable, Option<HeadShape>),
    weights: &[WeightShape],
    trained: Trains,
) -> Result<(), Refused> {
    let shapes: BTreeMap<_, _> = weights.iter().map(|weight| (weight.name, weight)).collect();
    let mut demanded = BTreeMap::new();
    for (weight, rank) in ranks.trained() {
        let shape = shapes
            .get(&weight)
            .ok_or(Refused::UnknownWeight { weight })?;
        if trained == Trains::Both {
            demanded.insert(weight.peft_a(), [usize::from(rank), shape.inp]);
        }
        demanded.insert(weight.peft_b(), [shape.out, usize::from(rank)]);
    }
    let head = head.map(head::tensors).into_iter().flatten();
    let head: BTreeMap<String, Vec<usize>> = head.collect();
    same_keys(update, demanded.keys().chain(head.keys()))?;
    for (key, expected) in &head {
        head::values(update, key, expected)?;
    }
    for (key, expected) in &demanded {
        has_shape(update, key, *expected)?;
    }
    for (key, expected) in &demanded {
        read(update, key, *expected)?;
    }
    Ok(())
}

/// The weights of an adapter with their widths, read from the shapes of its factors.
///
/// # Errors
/// If a key is not PEFT's for a known weight, a factor has no partner, or the two do not fit.
pub fn shapes(adapter: &dyn Source) -> Result<Vec<WeightShape>, Refused> {
    let mut names = BTreeSet::new();
    let mut keys = Keys::default();
    for key in adapter.keys() {
        match WeightName::from_peft(&key) {
            Some((name, _)) => drop(names.insert(name)),
            None if head::is_head(&key) => {}
            None => keys.extra.push(cut(&key)),
        }
    }
    let mut found = Vec::new();
    for name in names {
        let (key_a, key_b) = (name.peft_a(), name.peft_b());
        match (adapter.shape(&key_a), adapter.shape(&key_b)) {
            (None, _) => keys.missing.push(key_a),
            (_, None) => keys.missing.push(key_b),
            (Some(a), Some(b)) => found.push(widths(name, &a, b)?),
        }
    }
    if keys == Keys::default() {
        Ok(found)
    } else {
        Err(Refused::Keys(keys))
    }
}

fn widths(name: WeightName, a: &[usize], b: Vec<usize>) -> Result<WeightShape, Refused> {
    match (a, b.as_slice()) {
        (&[rank, inp], &[out, columns]) if rank == columns => Ok(WeightShape { name, out, inp }),
        _ => Err(Refused::Shape {
            key: name.peft_b(),
            expected: [
                b.first().copied().unwrap_or(0),
                a.first().copied().unwrap_or(0),
            ],
            found: b,
        }),
    }
}

fn same_keys<'a>(
    update: &dyn Source,
    demanded: impl Iterator<Item = &'a String>,
) -> Result<(), Refused> {
    let present: BTreeSet<String> = update.keys().into_iter().collect();
    let demanded: BTreeSet<&String> = demanded.collect();
    let missing = demanded.iter().filter(|key| !present.contains(**key));
    let extra = present.iter().filter(|key| !demanded.contains(key));
    let keys = Keys {
        missing: missing.map(|key| (*key).clone()).collect(),
        extra: extra.map(|key| cut(key)).collect(),
    };
    if keys == Keys::default() {
        Ok(())
    } else {
        Err(Refused::Keys(keys))
    }
}

fn cut(key: &str) -> String {
    key.chars().take(120).collect()
}

fn has_shape(source: &dyn Source, key: &str, expected: [usize; 2]) -> Result<(), Refused> {
    let found = source.shape(key).ok_or_else(|| {
        Refused::Keys(Keys {
            missing: vec![key.to_owned()],
            extra: Vec::new(),
        })
    })?;
    if found == expected {
        return Ok(());
    }
    let key = key.to_owned();
    Err(Refused::Shape {
        key,
        found,
        expected,
    })
}

/// Reads one factor, row by row: of this shape, and finite.
pub(super) fn read(
    source: &dyn Source,
    key: &str,
    expected: [usize; 2],
) -> Result<Vec<f32>, Refused> {
    has_shape(source, key, expected)?;
    let values = source.read(key).map_err(|below| Refused::Unreadable {
        key: key.to_owned(),
        source: below,
    })?;
    if Some(values.len()) != expected[0].checked_mul(expected[1]) {
        return Err(Refused::Shape {
            key: key.to_owned(),
            found: vec![values.len()],
            expected,
        });
    }
    // Without an early end the loop takes many values at once; where is asked only if there is one.
    if values
        .iter()
        .fold(true, |all, value| all & value.is_finite())
    {
        return Ok(values);
    }
    let at = values.iter().position(|value| !value.is_finite());
    Err(Refused::NotFinite {
        key: key.to_owned(),
        at: at.unwrap_or(0),
    })
}
