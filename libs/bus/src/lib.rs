//! The only user of async-nats: typed publish and serve, acknowledgements, key-value store.
