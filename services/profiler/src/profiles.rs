//! Writing a site's profile. How large one is, its site has a say in by what it measured: one that is larger than a value
//! may be is not written, and whoever wanted it goes on without. No job ends by it.

use contract::topology::profile_key;
use domain::id::JobId;
use domain::profile::Profile;

use crate::Error;
use crate::app::Profiler;
use crate::cache::Kept;

/// Stores a site's profile for a job; or says why it is too large.
///
/// # Errors
/// If the store does not answer.
pub async fn put(
    profiler: &Profiler,
    job: &JobId,
    profile: &Profile,
) -> Result<Result<(), bus::Error>, Error> {
    let key = profile_key(job, &profile.worker);
    fitting(profiler.profiles.put(&key, profile).await)
}

/// Keeps a site's profile for jobs to come, under this key; or says why it is too large.
///
/// # Errors
/// As [`put`].
pub async fn keep(
    profiler: &Profiler,
    key: &str,
    kept: &Kept,
) -> Result<Result<(), bus::Error>, Error> {
    fitting(profiler.kept.put(key, kept).await)
}

fn fitting(stored: Result<(), bus::Error>) -> Result<Result<(), bus::Error>, Error> {
    match stored {
        Err(error @ bus::Error::TooLarge { .. }) => Ok(Err(error)),
        stored => Ok(Ok(stored?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_too_large_is_its_site_s_trouble_and_no_other_error_is() {
        let too_large = bus::Error::TooLarge {
            what: "value",
            bytes: 2 << 20,
            limit: 1 << 20,
        };
        assert!(matches!(fitting(Err(too_large)), Ok(Err(_))));
        assert!(matches!(fitting(Ok(())), Ok(Ok(()))));
        let key = "a".to_owned();
        let other = bus::Error::Conflict { key };
        assert!(matches!(fitting(Err(other)), Err(Error::Bus(_))));
    }
}
