//! `fencepost devices`: the devices of every backend, or what a backend lacks.

use fencepost::Device;
use serde::Serialize;

use crate::{Stop, WIDTH, print, print_json, table};

/// List the devices of every backend and their clocks, or what a backend lacks
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
    /// Why there is no device, and what to install.
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
    let header = [
        "backend",
        "device",
        "clock and resolution, or what is missing",
    ];
    let longest = |texts: &mut dyn Iterator<Item = &str>| texts.map(str::len).max().unwrap_or(0);
    let backends = longest(&mut report.backends.iter().map(|found| found.backend));
    let devices = report.backends.iter().flat_map(|found| &found.devices);
    let names = longest(&mut devices.map(|device| &*device.name));
    let taken = backends.max(header[0].len()) + 2 + names.max(header[1].len()) + 2;
    let wrapped = |text: &str| wrap(text, WIDTH.saturating_sub(taken));
    let mut table = table(header);
    for found in &report.backends {
        if let Some(missing) = &found.missing {
            table.add_row([found.backend, "-", &wrapped(missing)]);
        }
        for device in &found.devices {
            let facts = match (&device.clock, &device.error) {
                (Some(clock), _) => format!("{}, {} ns", clock.name, clock.resolution_ns),
                (None, Some(error)) => format!("FAILED: {error}"),
                (None, None) => String::new(),
            };
            table.add_row([found.backend, &device.name, &wrapped(&facts)]);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// Breaks `text` at spaces into lines of at most `width` columns, where it has spaces enough.
fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if column > 0 {
            let fits = column + 1 + wide <= width;
            wrapped.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        wrapped.push_str(word);
        column += wide;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_wrapped_at_its_spaces() {
        assert_eq!(wrap("", 9), "");
        assert_eq!(wrap("one line", 9), "one line");
        assert_eq!(wrap("one line more", 8), "one line\nmore");
        assert_eq!(wrap("a µµµµµ b", 7), "a µµµµµ\nb");
        assert_eq!(wrap("a longest_word b", 4), "a\nlongest_word\nb");
    }
}
