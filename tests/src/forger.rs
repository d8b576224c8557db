//! A site that answers what it likes: it speaks the contract, with the site's own password.

use artifacts::Transfer;
use bus::{Bus, Connect};
use contract::message::report::{Head, Updated};
use contract::permission::Role;
use domain::artifact::ArtifactRef;
use domain::id::Epoch;
use domain::round::{Update, UpdateMetrics};

use crate::Fleet;

/// Somebody who speaks for a site.
#[derive(Debug, Clone)]
pub struct Forger {
    site: String,
    bus: Bus,
    store: artifacts::Store,
}

impl Forger {
    /// Connects as this site's worker.
    pub async fn of(fleet: &Fleet, site: &str) -> Self {
        let role = Role::Worker(site.parse().expect("a worker's name"));
        let connect = Connect {
            url: fleet.nats_url(),
            user: Some(role.user()),
            password: Some(fleet.password(&role.user()).into()),
            ..Connect::default()
        };
        Self {
            site: site.to_owned(),
            bus: Bus::connect(&connect, &role)
                .await
                .expect("the fleet's bus"),
            store: fleet.objects(),
        }
    }

    /// Stores an update where the site's own lie.
    pub async fn store(&self, job: &str, round: u32, bytes: &[u8]) -> ArtifactRef {
        let prefix = format!("jobs/{job}/updates/{}/{round}", self.site);
        let transfer = Transfer::default();
        let stored = self.store.put_bytes(&prefix, bytes.to_vec(), &transfer);
        stored.await.expect("the update is stored")
    }

    /// Says whatever it likes.
    pub async fn say<M: contract::Message>(&self, message: &M) {
        let said = self.bus.publish(message, None).await;
        said.expect("the report is stored");
    }

    /// Reports an update of this round.
    pub async fn report(&self, job: &str, epoch: u64, round: u32, update: Update) {
        let updated = Updated {
            head: Head {
                worker: self.site.parse().expect("a worker's name"),
                job: job.parse().expect("a job"),
                epoch: Epoch(epoch),
            },
            round,
            update,
        };
        let said = self.bus.publish(&updated, None).await;
        said.expect("the report is stored");
    }
}

/// An update with plausible figures.
#[must_use]
pub fn update(adapter: ArtifactRef) -> Update {
    let metrics = UpdateMetrics {
        records: 8,
        tokens: 100,
        loss: 1.0,
        steps: 2,
        skipped_steps: 0,
        refused_records: 0,
        compute_seconds: 0.1,
        tokens_per_second: 1000.0,
        peak_memory_bytes: 1,
        bytes_up: 1,
        bytes_down: 1,
        control_bytes_up: 1,
        energies: domain::energy::EnergyTable::default(),
    };
    Update { adapter, metrics }
}
