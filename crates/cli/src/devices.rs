//! `fencepost devices`: what there is, and what would bring the rest.

use fencepost::Device;
use serde::Serialize;

use crate::{Stop, print, print_json, table};

/// List every backend: its devices with their clocks, or why there is none and what would bring one
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object: {"backends": [{backend, devices, missing}]}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    backends: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    backend: &'static str,
    devices: Vec<Opened>,
    /// Why there is no device.
    missing: Option<String>,
}

#[derive(Serialize)]
struct Opened {
    name: String,
    clock: Option<Clock>,
    /// Why the device was found but cannot be opened.
    error: Option<String>,
}

#[derive(Serialize)]
struct Clock {
    name: String,
    resolution_ns: u64,
    tick_ns: f64,
    valid_bits: u32,
}

pub(crate) fn run(args: &Args) -> Result<(), Stop> {
    let backends: Vec<_> = Device::list()
        .into_iter()
        .map(|found| Found {
            backend: found.backend.name(),
            devices: found.devices.into_iter().map(opened).collect(),
            missing: found.missing,
        })
        .collect();
    let report = Report { backends };
    match args.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    let mut devices = report.backends.iter().flat_map(|found| &found.devices);
    match devices.any(|device| device.error.is_some()) {
        true => Err(Stop::Reported),
        false => Ok(()),
    }
}

fn opened(name: String) -> Opened {
    let (clock, error) = match Device::open(&name) {
        Ok(device) => {
            let clock = device.clock();
            let clock = Clock {
                name: clock.name().into(),
                resolution_ns: clock.resolution().as_nanos() as u64,
                tick_ns: clock.tick_nanos(),
                valid_bits: clock.valid_bits(),
            };
            (Some(clock), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    Opened { name, clock, error }
}

fn text(report: &Report) -> String {
    let mut table = table([
        "backend",
        "device",
        "clock and resolution, or what is missing",
    ]);
    for found in &report.backends {
        if let Some(missing) = &found.missing {
            table.add_row([found.backend, "-", missing]);
        }
        for device in &found.devices {
            let facts = match (&device.clock, &device.error) {
                (Some(clock), _) => format!("{}, {} ns", clock.name, clock.resolution_ns),
                (None, Some(error)) => format!("FAILED: {error}"),
                (None, None) => String::new(),
            };
            table.add_row([found.backend, &device.name, &facts]);
        }
    }
    format!("{}\n", table.trim_fmt())
}
