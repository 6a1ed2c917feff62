//! `fencepost check`: what works on this machine, case by case.

use std::{fmt::Write as _, time::Duration};

use fencepost::{
    Device,
    testing::{self, Case, Outcome},
};
use serde::Serialize;

use crate::{Stop, open, print, print_json, printable, progress_bar, units};

/// Run the conformance suite on a device: each case checks one promise of device events
#[derive(clap::Args)]
#[command(
    after_help = "The last line is always: N passed, N failed, N skipped.\n\
    Exit codes: 0 no case failed, 1 a case failed, 2 bad arguments.",
    after_long_help = JSON_HELP
)]
pub(crate) struct Args {
    /// The device, by its name in `fencepost devices` [default: FENCEPOST_DEVICE, or the one that
    /// `fencepost devices` marks]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// Run only the cases whose name contains this text
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,

    /// Print one JSON object in place of the lines, when all cases are over
    #[arg(long)]
    json: bool,
}

const JSON_HELP: &str = "\
The last line is always: N passed, N failed, N skipped.

JSON fields of check:
  device, clock, clock_resolution_ns  the device and its clock
  cases                               for each: name, result, reason, seconds;
                                      result is passed, failed or skipped, and
                                      reason is null where it passed
  summary                             passed, failed, skipped: how many

Exit codes: 0 no case failed, 1 a case failed, 2 bad arguments.";

#[derive(Serialize)]
struct Report {
    device: String,
    clock: String,
    clock_resolution_ns: u64,
    cases: Vec<Ran>,
    summary: Counts,
}

#[derive(Serialize)]
struct Ran {
    name: &'static str,
    result: &'static str,
    /// What was seen where it failed; why it was skipped.
    reason: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

pub(crate) fn run(args: &Args) -> Result<(), Stop> {
    let device = open(args.device.as_deref())?;
    let filter = &args.filter;
    let chosen = |case: &Case| case.name.contains(filter);
    if !filter.is_empty() && !testing::cases().any(chosen) {
        return Err(Stop::Usage(format!(
            "no name of a case contains \"{filter}\"; without --filter, all names are printed"
        )));
    }
    match args.json {
        true => run_for_json(&device, filter),
        false => run_for_text(&device, filter),
    }
}

fn run_for_text(device: &Device, filter: &str) -> Result<(), Stop> {
    let clock = device.clock();
    print(&format!(
        "device: {device}, timed by the clock \"{}\" with a resolution of {} ns\n",
        clock.name(),
        clock.resolution().as_nanos()
    ))?;

    let mut failed = Vec::new();
    let mut written = Ok(());
    let summary = testing::run(device, filter, |case, outcome, took| {
        if matches!(outcome, Outcome::Failed(_)) {
            failed.push(case.name);
        }
        if written.is_ok() {
            written = print(&text(case, outcome, took));
        }
    });
    written?;

    let mut end = String::new();
    if !failed.is_empty() {
        let _ = writeln!(end, "failed: {}", failed.join(", "));
    }
    // In full, and not by `Display`: scripts read this line.
    let _ = writeln!(
        end,
        "{} passed, {} failed, {} skipped",
        summary.passed, summary.failed, summary.skipped
    );
    print(&end)?;
    end_with(summary.failed)
}

fn run_for_json(device: &Device, filter: &str) -> Result<(), Stop> {
    let chosen = testing::cases().filter(|case| case.name.contains(filter));
    let bar = progress_bar(chosen.count() as u64, "{msg:11} {wide_bar} {pos}/{len}");
    bar.set_message("checking");
    let mut cases = Vec::new();
    let summary = testing::run(device, filter, |case, outcome, took| {
        let (result, reason) = match outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(seen) => ("failed", Some(seen)),
            Outcome::Skipped(why) => ("skipped", Some(why)),
        };
        cases.push(Ran {
            name: case.name,
            result,
            reason: reason.cloned(),
            seconds: took.as_secs_f64(),
        });
        bar.inc(1);
    });
    bar.finish_and_clear();
    let clock = device.clock();
    print_json(&Report {
        device: device.to_string(),
        clock: clock.name().into(),
        clock_resolution_ns: clock.resolution().as_nanos() as u64,
        cases,
        summary: Counts {
            passed: summary.passed,
            failed: summary.failed,
            skipped: summary.skipped,
        },
    })?;
    end_with(summary.failed)
}

fn end_with(failed: usize) -> Result<(), Stop> {
    match failed {
        0 => Ok(()),
        _ => Err(Stop::Reported),
    }
}

/// One line for a case; where it failed, what was seen follows.
fn text(case: &Case, outcome: &Outcome, took: Duration) -> String {
    let took = units::time(took.as_nanos() as f64);
    match outcome {
        Outcome::Passed => format!("ok       {took:>8}  {}\n", case.name),
        Outcome::Skipped(why) => {
            format!("skipped  {took:>8}  {}: {}\n", case.name, printable(why))
        }
        Outcome::Failed(seen) => {
            let mut text = format!("FAILED   {took:>8}  {}\n", case.name);
            for line in seen.lines() {
                let _ = writeln!(text, "    {}", printable(line));
            }
            text
        }
    }
}
