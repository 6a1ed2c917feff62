//! The machine that a test or the environment asks for.

use std::str::FromStr;

/// The machine to simulate. Start from `Setup::seeded(n)` and change what the test needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The seed of every random choice of the scheduler.
    pub seed: u64,
    /// The number of devices. The first is the system's default device; without any, that is nil.
    pub devices: usize,
    /// Whether `newSharedEvent` returns an event. In some sandboxes it returns nil.
    pub shared_events: bool,
    /// How many uncompleted command buffers a queue may have before `commandBuffer` blocks, unless
    /// `newCommandQueueWithMaxCommandBufferCount:` says otherwise.
    pub command_buffers: usize,
    /// The number of hardware channels that the queues of a device share. A command buffer that
    /// waits blocks the later ones on its channel, in its own queue too. With `None` a wait blocks
    /// its command buffer only.
    pub channels: Option<usize>,
    /// Whether handlers may be added to a command buffer while an encoder is open on it. macOS 26.4
    /// is reported to end the process then (<https://github.com/ml-explore/mlx/pull/3714>); PyTorch
    /// does so on every version.
    pub handlers_beside_encoders: bool,
    /// Whether the system claims to lack the methods of macOS 10.15.
    pub is_before_10_15: bool,
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.trim().parse().ok()
}

impl Setup {
    /// Two devices that have every feature.
    pub fn seeded(seed: u64) -> Setup {
        Setup {
            seed,
            devices: 2,
            shared_events: true,
            command_buffers: 64,
            channels: None,
            handlers_beside_encoders: false,
            is_before_10_15: false,
        }
    }

    /// The setup from the environment variables that the crate's documentation lists. Without
    /// `FENCEPOST_SIM_SEED` the seed is random.
    pub fn from_environment() -> Setup {
        let plain = Setup::seeded(fencepost_sim::random_seed());
        Setup {
            devices: variable("FENCEPOST_SIM_METAL_DEVICES").unwrap_or(plain.devices),
            shared_events: variable("FENCEPOST_SIM_METAL_SHARED_EVENTS") != Some(0),
            command_buffers: variable("FENCEPOST_SIM_METAL_COMMAND_BUFFERS")
                .filter(|&most| most > 0)
                .unwrap_or(plain.command_buffers),
            channels: variable("FENCEPOST_SIM_METAL_CHANNELS").filter(|&channels| channels > 0),
            handlers_beside_encoders: variable("FENCEPOST_SIM_METAL_HANDLERS_BESIDE_ENCODERS")
                == Some(1),
            ..plain
        }
    }
}
