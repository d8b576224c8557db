//! What is not a message of ours is refused, with why.

use contract::envelope::SIZE_LIMIT;
use contract::message::control::Reply;
use contract::message::report::Failed;
use contract::message::task::Task;
use contract::{DecodeError, decode, encode};
use proptest::prelude::*;

use crate::samples;

#[test]
fn another_kind_or_none_is_refused() {
    let bytes = encode(&samples::failed()).unwrap();
    for kind in [None, Some(""), Some("Failed"), Some("updated")] {
        let refused = decode::<Failed>(kind, Some("1"), &bytes).unwrap_err();
        assert!(
            matches!(refused, DecodeError::Kind { .. }),
            "{kind:?}: {refused}"
        );
    }
    let refused = Task::decode(Some("dance"), Some("1"), &bytes).unwrap_err();
    assert!(matches!(refused, DecodeError::Kind { .. }), "{refused}");
}

#[test]
fn another_version_or_none_is_refused_and_named() {
    let bytes = encode(&samples::failed()).unwrap();
    for version in [
        None,
        Some(""),
        Some("0"),
        Some("2"),
        Some("-1"),
        Some("1.0"),
        Some("99999"),
    ] {
        let refused = decode::<Failed>(Some("failed"), version, &bytes).unwrap_err();
        assert!(
            matches!(refused, DecodeError::Version { .. }),
            "{version:?}: {refused}"
        );
        assert!(refused.to_string().contains("upgrade"), "{refused}");
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_looked_at() {
    let large = vec![0xc1; SIZE_LIMIT + 1];
    let refused = decode::<Failed>(Some("failed"), Some("1"), &large).unwrap_err();
    assert!(matches!(refused, DecodeError::TooLarge(_)), "{refused}");
}

#[test]
fn a_message_that_was_cut_short_anywhere_is_refused() {
    let bytes = encode(&samples::updated()).unwrap();
    for len in 0..bytes.len() {
        let cut = Task::decode(Some("train"), Some("1"), &bytes[..len]);
        assert!(
            matches!(cut, Err(DecodeError::Layout { .. })),
            "{len} bytes"
        );
        let cut = decode::<Reply>(Some("control-reply"), Some("1"), &bytes[..len]);
        assert!(cut.is_err(), "{len} bytes");
        let cut =
            decode::<contract::message::report::Updated>(Some("updated"), Some("1"), &bytes[..len]);
        assert!(cut.is_err(), "{len} bytes");
    }
}

#[test]
fn an_identity_that_could_not_be_built_cannot_be_received_either() {
    let bytes = encode(&samples::failed()).unwrap();
    let at = bytes.windows(6).position(|six| six == b"site-a").unwrap();
    for illegal in [b"site.a", b"site-*", b"../../", b"SITE-A"] {
        let mut bytes = bytes.clone();
        bytes[at..at + 6].copy_from_slice(illegal);
        let refused = decode::<Failed>(Some("failed"), Some("1"), &bytes).unwrap_err();
        assert!(matches!(refused, DecodeError::Layout { .. }), "{refused}");
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_or_read_but_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for kind in ["probe", "train", "evaluate"] {
            let _ = Task::decode(Some(kind), Some("1"), &bytes);
        }
        let _ = decode::<contract::message::job::JobEvent>(Some("job-event"), Some("1"), &bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_read_but_never_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&samples::train()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Task::decode(Some("train"), Some("1"), &bytes);
    }
}
