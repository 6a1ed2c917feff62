//! `fencepost devices`: the devices of every backend, or what a backend lacks.

use fencepost::{Device, opencl};
use serde::Serialize;

use crate::{Stop, WIDTH, open, print, print_json, printable, table, wrap};

/// List the devices of every backend and their clocks, or what a backend lacks
///
/// The default is the device that the other commands take without --device: the one that
/// FENCEPOST_DEVICE names, or else the first of Metal, CUDA, Vulkan and OpenCL, or else the
/// host. Drivers of the last two that compute on the processor are left out of the choice.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object: {"backends": [{backend, devices, missing}], "gpus": [{uuid,
    /// devices}], "default": NAME or null, "no_default": why there is none, or null}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    backends: Vec<Found>,
    gpus: Vec<Gpu>,
    /// The device that commands take without `--device`.
    default: Option<String>,
    /// Why they would fail without `--device`.
    no_default: Option<String>,
}

/// One GPU, which may be a device of several backends.
#[derive(Serialize)]
struct Gpu {
    uuid: String,
    devices: Vec<String>,
}

#[derive(Serialize)]
struct Found {
    backend: &'static str,
    devices: Vec<Opened>,
    /// Why there is no device, and what to install.
    missing: Option<String>,
}

#[derive(Serialize)]
struct Opened {
    name: String,
    /// The same for all devices that are one GPU.
    uuid: Option<String>,
    /// OpenCL's name for the driver, and its version.
    platform: Option<String>,
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
    let gpus = gpus(&backends);
    // All devices were opened above, so that this opens none for its own sake.
    let (default, no_default) = match open(None) {
        Ok(device) => (Some(device.name().to_owned()), None),
        Err(Stop::Usage(why) | Stop::Failed(why)) => (None, Some(why)),
        Err(stop @ Stop::Reported) => return Err(stop),
    };
    let report = Report {
        backends,
        gpus,
        default,
        no_default,
    };
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
    let (clock, uuid, platform, error) = match Device::open(&name) {
        Ok(device) => {
            let clock = device.clock();
            let clock = Clock {
                name: clock.name().into(),
                resolution_ns: clock.resolution().as_nanos() as u64,
                tick_ns: clock.tick_nanos(),
                valid_bits: clock.valid_bits(),
            };
            let platform = opencl::platform(&device).ok();
            (Some(clock), device.uuid().map(in_words), platform, None)
        }
        Err(error) => (None, None, None, Some(error.to_string())),
    };
    Opened {
        name,
        uuid,
        platform,
        clock,
        error,
    }
}

/// As NVIDIA's tools and `vulkaninfo` write it.
fn in_words(uuid: [u8; 16]) -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let parts = [
        &uuid[..4],
        &uuid[4..6],
        &uuid[6..8],
        &uuid[8..10],
        &uuid[10..],
    ];
    parts.map(hex).join("-")
}

/// The GPUs that have a UUID, in the order of their first device.
fn gpus(backends: &[Found]) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = Vec::new();
    for device in backends.iter().flat_map(|found| &found.devices) {
        let Some(uuid) = &device.uuid else { continue };
        match gpus.iter_mut().find(|gpu| gpu.uuid == *uuid) {
            Some(gpu) => gpu.devices.push(device.name.clone()),
            None => gpus.push(Gpu {
                uuid: uuid.clone(),
                devices: vec![device.name.clone()],
            }),
        }
    }
    gpus
}

/// The other devices that are the same GPU, as the end of a sentence.
fn also(report: &Report, device: &Opened) -> String {
    let gpu = report
        .gpus
        .iter()
        .find(|gpu| Some(&gpu.uuid) == device.uuid.as_ref());
    let devices = gpu.map_or(&[][..], |gpu| &gpu.devices);
    let others: Vec<_> = devices
        .iter()
        .filter(|name| **name != device.name)
        .cloned()
        .collect();
    match others.is_empty() {
        true => String::new(),
        false => format!("; the same GPU as {}", others.join(", ")),
    }
}

/// A platform without what its driver was built with, as the end of a sentence: PoCL adds that to
/// its version.
fn brief(platform: &str) -> String {
    let ends = ["  ", ", "].map(|end| platform.find(end));
    match ends.into_iter().flatten().min() {
        Some(end) => format!("; {})", &platform[..end]),
        None => format!("; {platform}"),
    }
}

fn text(report: &Report) -> String {
    let header = [
        "backend",
        "device",
        "clock and resolution, or what is missing",
    ];
    let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::len).max().unwrap_or(0);
    let backends = longest(&mut report.backends.iter().map(|found| found.backend));
    let marked = |device: &Opened| match report.default.as_ref() == Some(&device.name) {
        true => format!("{} (default)", device.name),
        false => device.name.clone(),
    };
    let devices = report.backends.iter().flat_map(|found| &found.devices);
    let names: Vec<_> = devices.map(marked).collect();
    let names = longest(&mut names.iter().map(|name| &**name));
    let taken = backends.max(header[0].len()) + 2 + names.max(header[1].len()) + 2;
    let wrapped = |text: &str| wrap(text, WIDTH.saturating_sub(taken));
    let mut table = table(header);
    for found in &report.backends {
        if let Some(missing) = &found.missing {
            table.add_row([found.backend, "-", &wrapped(missing)]);
        }
        for device in &found.devices {
            let facts = match (&device.clock, &device.error) {
                (Some(clock), _) => format!(
                    "{}, {} ns{}{}",
                    clock.name,
                    clock.resolution_ns,
                    device.platform.as_deref().map_or_else(String::new, brief),
                    also(report, device)
                ),
                (None, Some(error)) => format!("FAILED: {error}"),
                (None, None) => String::new(),
            };
            table.add_row([found.backend, &marked(device), &wrapped(&facts)]);
        }
    }
    let mut text = format!("{}\n", table.trim_fmt());
    if let Some(why) = &report.no_default {
        let why = format!("no default device: {}", printable(why));
        text.push_str(&format!("\n{}\n", wrap(&why, WIDTH)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_one_gpu_are_told_as_one() {
        let device = |name: &str, uuid: Option<u8>| Opened {
            name: name.into(),
            uuid: uuid.map(|byte| in_words([byte; 16])),
            platform: None,
            clock: Some(Clock {
                name: "a clock".into(),
                resolution_ns: 1,
                tick_ns: 1.0,
                valid_bits: 64,
            }),
            error: None,
        };
        let backends = vec![
            Found {
                backend: "cuda",
                devices: vec![device("cuda:0", Some(1)), device("cuda:1", Some(2))],
                missing: None,
            },
            Found {
                backend: "vulkan",
                devices: vec![device("vulkan:0", Some(2)), device("vulkan:1", Some(3))],
                missing: None,
            },
            Found {
                backend: "host",
                devices: vec![device("host", None)],
                missing: None,
            },
        ];
        let gpus = gpus(&backends);
        let named: Vec<_> = gpus.iter().map(|gpu| gpu.devices.join(" ")).collect();
        assert_eq!(named, ["cuda:0", "cuda:1 vulkan:0", "vulkan:1"]);
        assert_eq!(gpus[0].uuid, "01010101-0101-0101-0101-010101010101");
        let report = Report {
            backends,
            gpus,
            default: None,
            no_default: None,
        };
        let also =
            |backend: usize, index: usize| also(&report, &report.backends[backend].devices[index]);
        assert_eq!(also(0, 0), "");
        assert_eq!(also(0, 1), "; the same GPU as vulkan:0");
        assert_eq!(also(1, 0), "; the same GPU as cuda:1");
        assert_eq!(also(2, 0), "");
        assert!(text(&report).contains("the same GPU as"));
    }

    #[test]
    fn a_platform_is_named_without_what_it_was_built_with() {
        for (platform, shown) in [
            (
                "A (OpenCL 3.0 A 1.2  Linux, SPIR)",
                "; A (OpenCL 3.0 A 1.2)",
            ),
            ("A (OpenCL 3.0 A 1.2, SPIR)", "; A (OpenCL 3.0 A 1.2)"),
            ("A(R) B (OpenCL 3.1 LINUX)", "; A(R) B (OpenCL 3.1 LINUX)"),
            (
                "a platform without a version",
                "; a platform without a version",
            ),
        ] {
            assert_eq!(brief(platform), shown);
        }
    }

    #[test]
    fn a_text_is_wrapped_at_its_spaces() {
        assert_eq!(wrap("", 9), "");
        assert_eq!(wrap("one line", 9), "one line");
        assert_eq!(wrap("one line more", 8), "one line\nmore");
        assert_eq!(wrap("a µµµµµ b", 7), "a µµµµµ\nb");
        assert_eq!(wrap("a longest_word b", 4), "a\nlongest_word\nb");
    }
}
