//! The small data sets.

use std::collections::BTreeSet;

use testkit::data::mails;

fn lines(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn no_mail_is_there_twice_and_half_are_spam() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeSet::new();
    for worker in ["site-a", "site-b"] {
        let files = mails(folder.path(), worker, 40, 7).unwrap();
        let (train, held_out) = (lines(&files.train), lines(&files.held_out));
        assert_eq!((train.len(), held_out.len()), (40, 10));
        let spam = train.iter().filter(|line| line.contains("\" yes\""));
        assert_eq!(spam.count(), 20);
        all.extend(train.into_iter().chain(held_out));
    }
    assert_eq!(all.len(), 100);
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let texts = [1, 1, 2].map(|seed| {
        let folder = tempfile::tempdir().unwrap();
        let files = mails(folder.path(), "site-a", 20, seed).unwrap();
        lines(&files.train)
    });
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}
