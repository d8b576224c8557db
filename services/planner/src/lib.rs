//! Chooses for every worker what it trains, and says why.
