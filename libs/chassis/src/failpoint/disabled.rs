//! Fail-points of builds without debug assertions: none.

use super::{Failpoint, NAME_VARIABLE};

pub(super) const fn hit(_: Failpoint) {}

pub(super) fn announce() {
    if std::env::var_os(NAME_VARIABLE).is_some() {
        tracing::error!("{NAME_VARIABLE} is set, but this build has no fail-points");
    }
}
