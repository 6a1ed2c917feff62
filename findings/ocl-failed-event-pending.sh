#!/bin/sh
# ocl (Rust): an event whose work has failed is not complete, for ever, and nothing says so.
#
# OpenCL gives failed commands a negative status. `Event::is_complete` compares the status with
# "complete" alone, so the answer for a failed event is `Ok(false)`, as for a pending one.
# `EventList::clear_completed` keeps it for the same reason. `core::event_status` tells them apart
# by an error without the code: the negative status is none of the crate's four.
#
# Guess before the run: an error from each of the three, as from `wait_for`, which returns one.
#
# Why it matters: a loop that polls instead of blocking never ends for work that has failed, and
# a list that is cleared of complete events grows. Ask `core::event_status`, too, or wait.
#
# Seen on 2026-11-28 with ocl 0.19.7, Rust 1.95, intel-opencl-rt 2026.2.0 (OpenCL 3.1, CPU), Linux
# x86-64. The events are the program's own (user events), one set to complete and one to -42:
#   pending: is_complete Ok(false), status Ok(Submitted), kept in a list
#   complete: is_complete Ok(true), status Ok(Complete), cleared from a list
#   failed: is_complete Ok(false), status an error, kept in a list
#   waiting for it: an error
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir \
    intel-opencl-rt==2026.2.0 intel-cmplr-lib-rt==2026.2.0
mkdir -p "$dir/vendors" "$dir/failed/src"
echo "$dir/venv/lib/libintelocl.so" >"$dir/vendors/intel.icd"
cat >"$dir/failed/Cargo.toml" <<'TOML'
[package]
name = "failed"
version = "0.0.0"
edition = "2021"

[dependencies]
ocl = "=0.19.7"
TOML
cat >"$dir/failed/src/main.rs" <<'RUST'
use ocl::core::{event_status, ffi::clSetUserEventStatus};
use ocl::{Context, Device, Event, EventList, Platform};

fn ask(text: &str, event: &Event) -> (Option<bool>, bool, bool) {
    let complete = event.is_complete().ok();
    let status = event_status(event).map_err(drop);
    let mut list = EventList::new();
    list.push(event.clone());
    list.clear_completed().unwrap();
    let kept = !list.is_empty();
    let which = status.as_ref().map_or("an error".into(), |status| format!("Ok({status:?})"));
    let answer = complete.map_or("an error".into(), |complete| format!("Ok({complete})"));
    let place = if kept { "kept in a list" } else { "cleared from a list" };
    println!("{text}: is_complete {answer}, status {which}, {place}");
    (complete, status.is_ok(), kept)
}

fn main() {
    let platform = Platform::list()[0];
    let device = Device::first(platform).unwrap();
    let context = Context::builder().platform(platform).devices(device).build().unwrap();
    let user = || Event::user(&context).unwrap();
    let (pending, complete, failed) = (user(), user(), user());
    complete.set_complete().unwrap();
    let code = unsafe { clSetUserEventStatus(*failed.as_core().as_ptr_ref(), -42) };
    assert_eq!(code, 0);
    let seen = [
        ask("pending", &pending),
        ask("complete", &complete),
        ask("failed", &failed),
    ];
    let wait = failed.wait_for();
    println!("waiting for it: {}", if wait.is_ok() { "no error" } else { "an error" });
    pending.set_complete().unwrap();
    let [pending, complete, failed] = seen;
    let expected = pending == (Some(false), true, true)
        && complete == (Some(true), true, false)
        && failed == (Some(false), false, true);
    if !expected || wait.is_ok() {
        println!("the behaviour has changed");
        std::process::exit(1);
    }
}
RUST
RUSTFLAGS="-L $dir/venv/lib" cargo build --quiet --manifest-path "$dir/failed/Cargo.toml" \
    --target-dir "$dir/target"
LD_LIBRARY_PATH="$dir/venv/lib" OCL_ICD_VENDORS="$dir/vendors" "$dir/target/debug/failed"
