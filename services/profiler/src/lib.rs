//! Owns the fleet's resource picture: admits jobs to free sites, asks for probes, fits cost models.

pub mod fit;
