//! What is seen of queues from outside.

use bus::Backlog;
use contract::topology::{DEAD, JOBS, TASKS};

use crate::fixture::{Site, probe, site_a, site_b, submitted};

#[tokio::test]
async fn depths_and_backlogs_follow_what_is_said_and_not_yet_done() {
    let site = Site::open().await;
    let depths = site.api.depths().await.unwrap();
    assert_eq!(depths[TASKS.name].messages, 0);
    for job in 1..=3 {
        let task = probe(&site_a(), job, 1);
        site.aggregator.publish(&task, None).await.unwrap();
    }
    site.api.publish(&submitted(1, 1), None).await.unwrap();

    let depths = site.api.depths().await.unwrap();
    assert_eq!(depths[TASKS.name].messages, 3);
    assert!(depths[TASKS.name].bytes > 0);
    assert_eq!(
        (depths[JOBS.name].messages, depths[DEAD.name].messages),
        (1, 0)
    );
    let backlogs = site.api.backlogs().await.unwrap();
    let waiting = Backlog {
        tasks: 3,
        redelivered: 0,
    };
    let nothing = Backlog {
        tasks: 0,
        redelivered: 0,
    };
    assert_eq!(backlogs, [(site_a(), waiting), (site_b(), nothing)].into());
}
