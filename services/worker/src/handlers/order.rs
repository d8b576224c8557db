//! Orders: obeyed beside whatever is being computed, within one block of it.

use std::sync::Arc;
use std::time::Duration;

use bus::IncomingOrder;
use contract::message::control::{Order, Reply};
use futures::StreamExt;

use crate::site::Site;

/// Pause before a broken subscription is made again.
const MEND: Duration = Duration::from_millis(200);

/// Listens for orders until the process stops; call it in its own task.
pub async fn listen(site: Arc<Site>) {
    while !site.token.is_cancelled() {
        match site.bus.orders(&site.name).await {
            Ok(mut orders) => {
                while let Some(Some(order)) = site.token.run_until_cancelled(orders.next()).await {
                    handle(&site, order).await;
                }
            }
            Err(error) => tracing::warn!(%error, "cannot listen for orders yet"),
        }
        let _ = site
            .token
            .run_until_cancelled(tokio::time::sleep(MEND))
            .await;
    }
}

async fn handle(site: &Arc<Site>, order: IncomingOrder) {
    let stopped = match &order.control.order {
        Order::Ping => false,
        Order::Cancel { job, below } => {
            tracing::info!(%job, %below, "cancelled");
            let stopped = site.floors.raise(job, *below);
            let (sealed, job, below) = (site.sealed.clone(), job.clone(), *below);
            // Not waited for: the order is obeyed, and what is left over is found by age.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = sealed.drop_below(&job, below) {
                    tracing::warn!(%error, %job, "sealed results of a dropped job remain");
                }
            });
            stopped
        }
    };
    let worker = site.name.clone();
    if let Err(error) = order.answer(&Reply { worker, stopped }).await {
        tracing::warn!(%error, "an order was obeyed and not answered");
    }
}
