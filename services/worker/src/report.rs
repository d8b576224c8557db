//! Any report of a worker, as it is sealed on disk and said on the bus.

use bus::{Bus, Said};
use contract::message::report::{Evaluated, Failed, Head, Probed, Updated, Walked};
use contract::{DecodeError, Message};

/// Any report.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// Measured.
    Probed(Box<Probed>),
    /// Trained.
    Updated(Box<Updated>),
    /// Trained, zeroth-order.
    Walked(Box<Walked>),
    /// Scored.
    Evaluated(Box<Evaluated>),
    /// Not possible here.
    Failed(Box<Failed>),
}

impl Report {
    /// Whose report on what.
    #[must_use]
    pub fn head(&self) -> &Head {
        match self {
            Self::Probed(report) => &report.head,
            Self::Updated(report) => &report.head,
            Self::Walked(report) => &report.head,
            Self::Evaluated(report) => &report.head,
            Self::Failed(report) => &report.head,
        }
    }

    /// The kind of its message.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Probed(_) => Probed::KIND,
            Self::Updated(_) => Updated::KIND,
            Self::Walked(_) => Walked::KIND,
            Self::Evaluated(_) => Evaluated::KIND,
            Self::Failed(_) => Failed::KIND,
        }
    }

    /// Says it; the stream keeps the first of its identity.
    ///
    /// # Errors
    /// If the server does not confirm it.
    pub async fn publish(&self, bus: &Bus) -> Result<Said, bus::Error> {
        match self {
            Self::Probed(report) => bus.publish(&**report, None).await,
            Self::Updated(report) => bus.publish(&**report, None).await,
            Self::Walked(report) => bus.publish(&**report, None).await,
            Self::Evaluated(report) => bus.publish(&**report, None).await,
            Self::Failed(report) => bus.publish(&**report, None).await,
        }
    }

    /// Kind and version on a line, then the payload as it travels.
    ///
    /// # Errors
    /// None that a report could cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        match self {
            Self::Probed(report) => written(&**report),
            Self::Updated(report) => written(&**report),
            Self::Walked(report) => written(&**report),
            Self::Evaluated(report) => written(&**report),
            Self::Failed(report) => written(&**report),
        }
    }

    /// Reads what [`Report::to_bytes`] wrote, also of an older version of this program.
    ///
    /// # Errors
    /// If it is damaged, or of a version that this program does not know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (line, payload) = bytes.split_at(end.unwrap_or(0));
        let line = str::from_utf8(line).unwrap_or_default();
        let (kind, version) = line.split_once(' ').unwrap_or_default();
        let (kind, version) = (Some(kind), Some(version));
        let payload = payload.get(1..).unwrap_or_default();
        match kind {
            Some(Probed::KIND) => read(kind, version, payload).map(Self::Probed),
            Some(Updated::KIND) => read(kind, version, payload).map(Self::Updated),
            Some(Walked::KIND) => read(kind, version, payload).map(Self::Walked),
            Some(Evaluated::KIND) => read(kind, version, payload).map(Self::Evaluated),
            _ => read(kind, version, payload).map(Self::Failed),
        }
    }
}

fn written<M: Message>(message: &M) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = format!("{} {}\n", M::KIND, M::VERSION).into_bytes();
    bytes.extend(contract::encode(message)?);
    Ok(bytes)
}

fn read<M: Message>(
    kind: Option<&str>,
    version: Option<&str>,
    payload: &[u8],
) -> Result<Box<M>, DecodeError> {
    contract::decode(kind, version, payload).map(Box::new)
}
