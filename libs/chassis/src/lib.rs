//! What every process needs: configuration, telemetry, health, signals, clock.
