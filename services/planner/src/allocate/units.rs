//! Bytes, seconds and losses as people read them.

/// Bytes in GiB from 1 GiB on, else in MiB.
pub(super) fn bytes(bytes: f64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    if bytes >= 1024.0 * MIB {
        format!("{:.2} GiB", bytes / (1024.0 * MIB))
    } else {
        format!("{:.1} MiB", bytes / MIB)
    }
}

/// Seconds, or milliseconds below a tenth.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds >= 0.1 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.1} ms", seconds * 1000.0)
    }
}

/// A loss or a difference of losses, with three digits that say something.
pub(super) fn loss(loss: f64) -> String {
    if loss.abs() >= 0.1 {
        format!("{loss:.3}")
    } else if loss.abs() >= 1e-4 {
        format!("{loss:.5}")
    } else {
        format!("{loss:.1e}")
    }
}
