//! How fast the link to storage is, measured by using it.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::transfer::tick;
use crate::{Error, PART_BYTES, Store, Transfer, key};
use bytes::Bytes;
use domain::grant::{Access, Wanted};

/// Most bytes that a probe moves in each direction.
pub const PROBE_BYTES: u64 = 8 * PART_BYTES;

/// Bytes per second in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    /// Towards storage.
    pub up_bytes_per_second: f64,
    /// From storage.
    pub down_bytes_per_second: f64,
}

impl Store {
    /// Writes `bytes` bytes under `prefix` in parts, reads them back, deletes them, and says how long
    /// each took. The content follows from `seed` and cannot be compressed on the way.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`PROBE_BYTES`]; whatever storage refuses.
    pub async fn probe(
        &self,
        prefix: &str,
        bytes: NonZeroU64,
        seed: u64,
        transfer: &Transfer,
    ) -> Result<Bandwidth, Error> {
        if bytes.get() > PROBE_BYTES {
            let key = prefix.to_owned();
            return Err(Error::TooLarge {
                key,
                bytes: bytes.get(),
                limit: PROBE_BYTES,
            });
        }
        let prefix = key::join(prefix, &format!("probe-{seed:016x}"));
        let lengths: Vec<u64> = (0..bytes.get().div_ceil(PART_BYTES))
            .map(|part| (bytes.get() - part * PART_BYTES).min(PART_BYTES))
            .collect();
        let names: Vec<String> = (0..lengths.len())
            .map(|part| key::join(&prefix, &part.to_string()))
            .collect();
        self.expect(|| uses(&names));
        // A probe that died would make this one find its objects instead of sending them.
        transfer.guard(self.delete_all(&names)).await?;
        let measured = self.measure(&names, &lengths, seed, transfer).await;
        // Also after a failure or a cancellation; which of the two is reported is the first one.
        let deleted = self.delete_all(&names).await;
        let bandwidth = measured?;
        deleted?;
        Ok(bandwidth)
    }

    /// By name: who reaches storage through signed URLs cannot list.
    async fn delete_all(&self, names: &[String]) -> Result<(), Error> {
        for name in names {
            self.delete(&key::parse(name)?).await?;
        }
        Ok(())
    }

    async fn measure(
        &self,
        names: &[String],
        lengths: &[u64],
        seed: u64,
        transfer: &Transfer,
    ) -> Result<Bandwidth, Error> {
        let mut up = Duration::ZERO;
        let mut down = Duration::ZERO;
        for (part, (name, &length)) in names.iter().zip(lengths).enumerate() {
            let content = noise(seed.wrapping_add(part as u64), length);
            let start = tick();
            transfer.guard(self.create(name, content, transfer)).await?;
            up += tick() - start;
        }
        for (name, &length) in names.iter().zip(lengths) {
            let start = tick();
            transfer
                .guard(self.get_exact(name, length, transfer))
                .await?;
            down += tick() - start;
        }
        let bytes: u64 = lengths.iter().sum();
        let rate = |time: Duration| bytes as f64 / time.as_secs_f64().max(1e-9);
        Ok(Bandwidth {
            up_bytes_per_second: rate(up),
            down_bytes_per_second: rate(down),
        })
    }
}

/// What a probe does with each of its objects; one that is asked for in time is not measured.
fn uses(names: &[String]) -> Vec<Wanted> {
    let accesses = [Access::Delete, Access::Put, Access::Get];
    let uses = accesses.into_iter().flat_map(|access| {
        let wanted = move |key: &String| Wanted {
            access,
            key: key.clone(),
        };
        names.iter().map(wanted)
    });
    uses.collect()
}

/// SplitMix64's output as bytes.
fn noise(seed: u64, bytes: u64) -> Bytes {
    let mut state = seed;
    let mut out = Vec::with_capacity(bytes as usize + 8);
    while (out.len() as u64) < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(bytes as usize);
    out.into()
}
