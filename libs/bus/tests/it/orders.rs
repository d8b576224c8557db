//! Orders to a worker and its answers; signs of life.

use bus::Retry;
use contract::message::control::{Control, Order, Reply};
use domain::fleet::{Beat, Stage};
use domain::id::Epoch;
use domain::time::UnixMillis;
use futures::StreamExt;
use testkit::wait;

use crate::fixture::{SOON, Site, job_id, site_a, site_b};

fn cancel() -> Control {
    Control {
        worker: site_a(),
        order: Order::Cancel {
            job: job_id(1),
            below: Epoch(5),
        },
    }
}

#[tokio::test]
async fn an_order_arrives_and_its_answer_comes_back() {
    let site = Site::open().await;
    let mut orders = site.worker.orders(&site_a()).await.unwrap();
    site.worker.round_trip().await.unwrap();
    let reply = Reply {
        worker: site_a(),
        stopped: true,
    };
    let obey = async {
        let order = orders.next().await.unwrap();
        assert_eq!(order.control, cancel());
        order.answer(&reply).await.unwrap();
    };
    let order = cancel();
    let (answer, ()) = tokio::join!(site.api.order(&order), obey);
    assert_eq!(answer.unwrap(), reply);
    // The aggregator may give orders too; its answers go elsewhere.
    let obey = async { orders.next().await.unwrap().answer(&reply).await.unwrap() };
    let (answer, ()) = tokio::join!(site.aggregator.order(&order), obey);
    assert_eq!(answer.unwrap(), reply);
}

#[tokio::test]
async fn an_order_to_nobody_is_an_error_to_be_tried_again() {
    let site = Site::open().await;
    let order = Control {
        worker: site_b(),
        order: Order::Ping,
    };
    let error = wait::in_time("it is refused", SOON, site.api.order(&order)).await;
    assert_eq!(error.unwrap_err().retry(), Retry::Later);
}

#[tokio::test]
async fn a_beat_reaches_every_control_service() {
    let site = Site::open().await;
    let mut heard = [
        site.api.beats().await.unwrap(),
        site.aggregator.beats().await.unwrap(),
    ];
    site.api.round_trip().await.unwrap();
    site.aggregator.round_trip().await.unwrap();
    let beat = Beat {
        worker: site_a(),
        at: UnixMillis(7),
        stage: Stage::Idle,
        counter: 3,
        progress: None,
        memory_bytes: 1,
        retries: 2,
    };
    site.worker.say(&beat).await.unwrap();
    for beats in &mut heard {
        let next = wait::in_time("the beat arrives", SOON, beats.next()).await;
        assert_eq!(next.unwrap(), beat);
    }
}
