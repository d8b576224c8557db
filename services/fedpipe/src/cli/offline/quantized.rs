//! Where commands on this machine keep quantized models.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use engine::model::Cache;

/// Bytes of all of them.
const LIMIT_BYTES: u64 = 8 << 30;

/// The folder that was asked for, else the user's own cache; none if `none` was asked for or the
/// user has no home. `variable` reads the environment.
pub fn cache(asked: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<Cache> {
    let folder = match asked {
        Some(folder) if folder == Path::new("none") => return None,
        Some(folder) => folder.to_owned(),
        None => of_user(variable)?.join("fedpipe/quantized"),
    };
    Some(Cache {
        folder,
        limit_bytes: LIMIT_BYTES,
    })
}

/// The user's folder for what can be made again. As the XDG base directory specification says: a relative path is as good as none.
pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_comes_before_the_users_cache_and_none_is_none() {
        let with = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let pair = pairs.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| OsString::from(value))
            }
        };
        let folder = |asked: Option<&str>, pairs| {
            cache(asked.map(Path::new), with(pairs)).map(|cache| cache.folder)
        };
        let (home, both) = (
            &[("HOME", "/home/a")],
            &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/cache")],
        );
        assert_eq!(folder(Some("/x"), both), Some("/x".into()));
        assert_eq!(folder(Some("none"), both), None);
        assert_eq!(folder(None, both), Some("/cache/fedpipe/quantized".into()));
        let below_home = Some("/home/a/.cache/fedpipe/quantized".into());
        assert_eq!(folder(None, home), below_home);
        assert_eq!(folder(None, &[("XDG_CACHE_HOME", "relative")]), None);
    }
}
