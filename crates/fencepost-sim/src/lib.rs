//! A simulated device, for tests only.
