//! Which arithmetic multiplies by the frozen weights, and with which instructions of the machine.
//!
//! Promises: the same kernel gives the same bytes for the same work, on any machine that has it and
//! for any number of threads. Kernels differ from one another in rounding, so a plan names one.
//!
//! Does not: decide which arithmetic a job may use.

use std::fmt;

/// Raise it with every change of the engine that changes a result.
const REVISION: u32 = 3;

/// The precision in which activations and frozen weights are multiplied. Sums are `f32` or wider,
/// and so is everything that is not a product with a frozen weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compute {
    /// Both as they are.
    #[default]
    F32,
    /// Both rounded to bf16, forward and backward.
    Bf16,
    /// Forward: both rounded to 8-bit integers, with a scale for each token and for each output.
    /// Backward: as bf16.
    Int8,
}

impl Compute {
    /// All of them, the exact one first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Instructions, from those every machine has to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Plain code whose results are the same on every machine.
    Portable,
    /// NEON, of 64-bit ARM.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI and BF16.
    Avx512Dot,
    /// Tiles (AMX) for bf16 and int8, beside AVX-512.
    Amx,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Dot => "avx512dot",
            Self::Amx => "amx",
        }
    }

    /// Whether this machine has them.
    #[must_use]
    pub fn is_present(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_present()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Dot => {
                Self::Avx512.is_present()
                    && is_x86_feature_detected!("avx512vnni")
                    && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Dot.is_present() && crate::ops::frozen::tiles_are_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

/// An arithmetic with the instructions that carry it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    compute: Compute,
    unit: Unit,
}

/// A kernel that this machine does not have, or no kernel at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel {asked:?} is not available here; available: {}", available.join(", "))]
pub struct Unavailable {
    /// What was asked for.
    pub asked: String,
    /// What there is.
    pub available: Vec<String>,
}

impl Kernel {
    /// The fastest of this machine for `compute`.
    #[must_use]
    pub fn best(compute: Compute) -> Self {
        let unit = Self::units(compute).last().unwrap_or(Unit::Portable);
        Self { compute, unit }
    }

    /// Every kernel of this machine, the slowest of each arithmetic first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let of = |compute| Self::units(compute).map(move |unit| Self { compute, unit });
        Compute::ALL.into_iter().flat_map(of).collect()
    }

    /// The kernel called `id`.
    ///
    /// # Errors
    /// This machine or this version of the engine does not have it.
    pub fn named(id: &str) -> Result<Self, Unavailable> {
        let available = Self::available();
        let found = available.iter().find(|kernel| kernel.to_string() == id);
        found.copied().ok_or_else(|| Unavailable {
            asked: id.to_owned(),
            available: available.iter().map(Self::to_string).collect(),
        })
    }

    /// Its arithmetic.
    #[must_use]
    pub const fn compute(self) -> Compute {
        self.compute
    }

    /// Its instructions.
    #[must_use]
    pub const fn unit(self) -> Unit {
        self.unit
    }

    /// The units of this machine that carry out `compute`, the fastest last.
    fn units(compute: Compute) -> impl Iterator<Item = Unit> {
        // The `gemm` crate multiplies in `f32`, always with the wider of these.
        let floats = [Unit::Avx512, Unit::Avx2, Unit::Neon].into_iter();
        let floats = floats.filter(|unit| unit.is_present()).take(1);
        let words = match compute {
            Compute::F32 => &[][..],
            Compute::Bf16 | Compute::Int8 => &[Unit::Avx512Dot, Unit::Amx],
        };
        let words = words.iter().copied().filter(|unit| unit.is_present());
        [Unit::Portable].into_iter().chain(floats).chain(words)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{REVISION}", self.unit.name(), self.compute.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_this_machine_is_found_by_its_name() {
        let available = Kernel::available();
        assert!(available.contains(&Kernel::best(Compute::F32)));
        for kernel in available {
            assert_eq!(Kernel::named(&kernel.to_string()), Ok(kernel));
        }
    }

    #[test]
    fn a_kernel_that_is_not_here_is_refused_with_what_is() {
        let error = Kernel::named("abacus-f32-1").unwrap_err();
        let text = error.to_string();
        let best = Kernel::best(Compute::F32).to_string();
        assert!(
            text.contains("abacus-f32-1") && text.contains(&best),
            "{text}"
        );
    }
}
