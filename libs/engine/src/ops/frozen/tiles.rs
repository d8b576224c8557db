//! One block of a product with the tile instructions (AMX).
//!
//! The compiler has no stable intrinsics for them; each is one line of assembly here. Block sizes
//! are those of the tiles: 2 × 2 tiles of 16 × 16 results, 64 bytes of the inner dimension a step.
#![expect(
    unsafe_code,
    reason = "tile instructions take pointers; every function states what they must point to"
)]

use std::arch::asm;
use std::sync::OnceLock;

use super::words::{PANEL, ROWS, STEP, Word};

/// Bytes of a line of a panel.
const LINE: usize = 4 * PANEL;

/// Whether the processor has tiles for bf16 and int8, and the system lets this process use them.
pub fn are_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| in_processor() && granted())
}

fn in_processor() -> bool {
    // Leaf 7: bf16, tiles, int8. Intel's manual, volume 2, CPUID.
    const NEEDED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    std::arch::x86_64::__cpuid(0).eax >= 7
        && std::arch::x86_64::__cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Linux gives a process the registers' 8 KiB of state only when asked.
#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: arch_prctl with these arguments takes no pointers; the instruction overwrites rax, rcx
    // and r11 alone, which are declared.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}

/// The tiles of this thread, configured while this lives.
pub(super) struct Tiles(());

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_a_row: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Configures eight tiles of 16 rows of 64 bytes.
    ///
    /// # Safety
    /// [`are_available`] is true.
    pub(super) unsafe fn configured() -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes_of_a_row: [0; 16],
            rows: [0; 16],
        };
        configuration.bytes_of_a_row[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: the operand is a whole, valid configuration, and tiles are available.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly))
        };
        Self(())
    }

    /// `c[ROWS, PANEL] = left[ROWS, words] · panel[words, PANEL]`, row by row.
    /// Results are `f32` for pairs and `i32` for quads.
    ///
    /// # Safety
    /// `left` points to [`ROWS`] rows of `words` words, `pitch` apart; `panel` to `words · PANEL`;
    /// `words` is a multiple of [`STEP`] and not 0; `c` points to [`ROWS`] rows of [`PANEL`] values,
    /// `stride` values apart.
    pub(super) unsafe fn block(
        &self,
        word: Word,
        (c, stride): (*mut u32, usize),
        (left, pitch): (*const u32, usize),
        panel: *const u32,
        words: usize,
    ) {
        // The two versions differ in one instruction, which must be in the text of the assembly.
        macro_rules! block {
            ($dot:literal) => {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{upper} + {row}*1]",
                    "tileloadd tmm6, [{panel} + {line}*1]",
                    concat!($dot, " tmm0, tmm4, tmm6"),
                    "tileloadd tmm7, [{panel} + {line}*1 + 64]",
                    concat!($dot, " tmm1, tmm4, tmm7"),
                    "tileloadd tmm5, [{lower} + {row}*1]",
                    concat!($dot, " tmm2, tmm5, tmm6"),
                    concat!($dot, " tmm3, tmm5, tmm7"),
                    "add {upper}, 64",
                    "add {lower}, 64",
                    "add {panel}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{top} + {pitch}*1], tmm0",
                    "tilestored [{top} + {pitch}*1 + 64], tmm1",
                    "tilestored [{bottom} + {pitch}*1], tmm2",
                    "tilestored [{bottom} + {pitch}*1 + 64], tmm3",
                    upper = inout(reg) left => _,
                    lower = inout(reg) left.add(ROWS / 2 * pitch) => _,
                    row = in(reg) 4 * pitch,
                    panel = inout(reg) panel => _,
                    line = in(reg) LINE,
                    steps = inout(reg) words / STEP => _,
                    top = in(reg) c,
                    bottom = in(reg) c.add(ROWS / 2 * stride),
                    pitch = in(reg) 4 * stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
        }
        // SAFETY: each step reads 64 bytes of 32 rows of `left` and 16 lines of `panel`, `words /
        // STEP` steps in all; the stores write 32 rows of 128 bytes. The caller vouches for these.
        unsafe {
            match word {
                Word::Pair => block!("tdpbf16ps"),
                // Unsigned times signed.
                Word::Quad => block!("tdpbusd"),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: gives the tiles back, so that the system need not save them; they were configured.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
