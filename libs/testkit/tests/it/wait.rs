//! Waiting.

use std::future::{pending, ready};
use std::time::Duration;

use testkit::wait;

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_value_that_comes_later_is_found() {
    let mut looks = 0;
    let found = wait::some("the third look", LONG, async || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(found.await, 3);
}

#[tokio::test]
#[should_panic(expected = "in vain until pigs fly")]
async fn waiting_in_vain_fails_and_says_for_what() {
    wait::until("pigs fly", SHORT, async || false).await;
}

#[tokio::test]
#[should_panic(expected = "must not: a surprise")]
async fn what_must_not_happen_fails_when_it_does() {
    wait::never("a surprise", LONG, ready(())).await;
}

#[tokio::test]
async fn what_never_happens_is_fine() {
    wait::never("a surprise", SHORT, pending::<()>()).await;
}
