//! The name under which a machine's arithmetic is known to plans.

/// Engine and arithmetic of this machine. Two workers of the same kernel give the same bytes for the
/// same work, whatever their number of threads: the engine promises it. The matrix product takes the
/// widest instructions of the machine, and these round differently; so they are in the name. Raise
/// the number with every change of the engine that changes a result.
#[must_use]
pub fn kernel() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "gemm-avx512-f32-1";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return "gemm-avx2-f32-1";
        }
    }
    "gemm-portable-f32-1"
}
