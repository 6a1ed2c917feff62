#!/bin/sh
# Firefox Profiler: markers of a thread behind its last sample are not shown.
#
# The range of a profile is that of the samples. Only a thread without a sample adds its markers to
# it. A marker that begins behind the range is counted, and not listed. One sample more at the end,
# or none at all, and it is there.
#
# Guess before the run: the range covers all samples and all markers.
#
# Why it matters: a sampler sees a thread that runs. While a thread waits for a device it has no
# samples, and that wait, with what the device does meanwhile, is what the markers tell. The end of
# a program is so cut off. Give markers of a device a thread of their own without samples.
#
# Seen on 2026-11-28 with fxprof-processed-profile 0.8.1 on Rust 1.95, and
# @firefox-devtools/profiler-cli 0.10.0 (the code of profiler.firefox.com), Node 24.21.0 of npm;
# times in ms from the first marker. Written: markers 0 to 1, 2 to 3, 40 to 50
#   no samples: counted 3, listed 0 to 1, 2 to 3, 40 to 50
#   samples at 0 and 3: counted 3, listed 0 to 1, 2 to 3
#   samples at 0, 3 and 50: counted 3, listed 0 to 1, 2 to 3, 40 to 50
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --prefix "$dir" @firefox-devtools/profiler-cli@0.10.0 node@24.21.0
mkdir -p "$dir/profile/src"
cat >"$dir/profile/Cargo.toml" <<'TOML'
[package]
name = "profile"
version = "0.0.0"
edition = "2021"

[dependencies]
fxprof-processed-profile = "=0.8.1"
serde_json = "1"
TOML
cat >"$dir/profile/src/main.rs" <<'RS'
use std::env;

use fxprof_processed_profile::*;

struct Work(StringHandle);

impl StaticSchemaMarker for Work {
    const UNIQUE_MARKER_TYPE_NAME: &'static str = "Work";
    const LOCATIONS: MarkerLocations = MarkerLocations::MARKER_CHART;
    const FIELDS: &'static [StaticSchemaMarkerField] = &[];

    fn name(&self, _: &mut Profile) -> StringHandle {
        self.0
    }
    fn category(&self, _: &mut Profile) -> CategoryHandle {
        CategoryHandle::OTHER
    }
    fn string_field_value(&self, _: u32) -> StringHandle {
        unreachable!()
    }
    fn number_field_value(&self, _: u32) -> f64 {
        unreachable!()
    }
}

fn main() {
    let samples: Vec<u64> = env::args().skip(1).map(|time| time.parse().unwrap()).collect();
    let at = |milliseconds: u64| Timestamp::from_nanos_since_reference(1_000_000 * milliseconds);
    let start = std::time::SystemTime::now().into();
    let mut profile = Profile::new("app", start, SamplingInterval::from_millis(1));
    let process = profile.add_process("app", 1, at(0));
    let thread = profile.add_thread(process, 2, at(0), false);
    profile.set_thread_name(thread, "GPU");
    let name = profile.intern_string("kernel");
    for (start, end) in [(1, 2), (3, 4), (41, 51)] {
        profile.add_marker(thread, MarkerTiming::Interval(at(start), at(end)), Work(name));
    }
    let frame = FrameInfo {
        frame: Frame::Label(name),
        category_pair: CategoryHandle::OTHER.into(),
        flags: FrameFlags::empty(),
    };
    let stack = profile.intern_stack_frames(thread, [frame].into_iter());
    for time in samples {
        profile.add_sample(thread, at(time), stack, CpuDelta::ZERO, 1);
    }
    println!("{}", serde_json::to_string(&profile).unwrap());
}
RS
cargo build --quiet --manifest-path "$dir/profile/Cargo.toml" --target-dir "$dir/target"
cat >"$dir/read.py" <<'PY'
import json
import pathlib
import subprocess
import sys

folder = pathlib.Path(sys.argv[1])
modules = folder / "node_modules"
program = modules / "@firefox-devtools/profiler-cli/dist/profiler-cli.js"
profile = folder / "profile.json"


def firefox(*arguments):
    command = [str(modules / "node/bin/node"), str(program), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def markers(*samples):
    written = [str(folder / "target/debug/profile"), *(str(time + 1) for time in samples)]
    profile.write_bytes(subprocess.run(written, check=True, capture_output=True).stdout)
    firefox("load", str(profile))
    overview = firefox("thread", "list")
    (thread,) = json.loads(firefox("thread", "list", "--json"))["threads"]
    listed = firefox("thread", "markers", "--thread", thread["threadHandle"], "--list", "--json")
    firefox("stop", "--all")
    (row,) = (line for line in overview.splitlines() if line.startswith("* t-"))
    found = json.loads(listed)["flatMarkers"]
    times = [(round(m["start"]), round(m["start"] + m["duration"])) for m in found]
    return int(row.split()[-1]), times


seen = []
for text, samples in (
    ("no samples", ()),
    ("samples at 0 and 3", (0, 3)),
    ("samples at 0, 3 and 50", (0, 3, 50)),
):
    count, times = markers(*samples)
    seen.append((count, times))
    listed = ", ".join(f"{start} to {end}" for start, end in times)
    print(f"{text}: counted {count}, listed {listed}")
whole = [(0, 1), (2, 3), (40, 50)]
ok = seen == [(3, whole), (3, whole[:2]), (3, whole)]
sys.exit(0 if ok else "the behaviour has changed")
PY
HOME="$dir" python3 "$dir/read.py" "$dir"
