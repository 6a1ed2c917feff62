//! `fencepost check`: what works on this machine, case by case.

use std::{fmt::Write as _, time::Duration};

use fencepost::testing::{self, Case, Outcome};

use crate::{Stop, open, print, printable, units};

/// Run the conformance suite on a device: each case checks one promise of device events
#[derive(clap::Args)]
#[command(
    after_help = "The last line is always: N passed, N failed, N skipped.\n\
    Exit codes: 0 no case failed, 1 a case failed, 2 bad arguments."
)]
pub(crate) struct Args {
    /// The device, by its name in `fencepost devices` [default: FENCEPOST_DEVICE, or the best
    /// device that works]
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
    let clock = device.clock();
    print(&format!(
        "device: {device}, timed by the clock \"{}\" with a resolution of {} ns\n",
        clock.name(),
        clock.resolution().as_nanos()
    ))?;

    let mut failed = Vec::new();
    let mut written = Ok(());
    let summary = testing::run(&device, filter, |case, outcome, took| {
        if matches!(outcome, Outcome::Failed(_)) {
            failed.push(case.name);
        }
        if written.is_ok() {
            written = print(&text(case, outcome, took));
            if let Err(Stop::NobodyReads) = written {
                // The suite takes long, and cannot be stopped otherwise.
                std::process::exit(0);
            }
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
    match summary.failed {
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
