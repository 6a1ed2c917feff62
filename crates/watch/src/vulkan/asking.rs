//! How far the queues are: what was seen of them, and what the driver says.

use std::sync::atomic::Ordering;

use ash::vk::{self, Handle as _};

use super::{
    FOLLOWS,
    account::Account,
    calls::ASKED,
    functions::{self, Device},
    seen::{Awaited, FenceState, SEEN, State},
};

/// Forgets what threads waited for that have ended between two waits for the same.
pub(crate) fn forget_ended() {
    let all = crate::threads::threads();
    let alive: Vec<i32> = all
        .iter()
        .map(|thread| thread.tid.load(Ordering::Acquire))
        .collect();
    let mut seen = SEEN.lock();
    seen.state.threads.retain(|tid, _| alive.contains(tid));
}

/// What is known now. The driver is asked only where `asks` says so.
pub(crate) fn account(asks: bool) -> Account {
    if asks {
        ask_semaphores();
        ask_fences();
    }
    forget_ended();
    let mut seen = SEEN.lock();
    seen.state.settle();
    Account::new(seen.state.clone())
}

/// The timeline semaphores that something waits for or will signal.
fn awaited(state: &State) -> Vec<u64> {
    let batches = state.queues.values().flat_map(|queue| queue.pending());
    let named = batches.flat_map(|batch| {
        let waits = batch.waits.iter().map(|wait| wait.semaphore);
        waits.chain(batch.signals.iter().map(|&(semaphore, _)| semaphore))
    });
    let threads = state.threads.values().flat_map(|awaited| match awaited {
        Awaited::Values(values, _) => &values[..],
        _ => &[],
    });
    let mut all: Vec<u64> = named
        .chain(threads.map(|&(semaphore, _)| semaphore))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether what the program destroys is still written down: else nothing may be asked about.
fn follows() -> bool {
    FOLLOWS.load(Ordering::SeqCst)
}

fn ask_semaphores() {
    let semaphores = {
        let mut seen = SEEN.lock();
        seen.state.settle();
        let numbers = awaited(&seen.state).into_iter();
        let of = numbers.filter_map(|number| seen.state.semaphores.get(&number).cloned());
        of.filter(|of| of.is_timeline && !of.is_destroyed)
            .collect::<Vec<_>>()
    };
    for of in semaphores {
        let is_there =
            || follows() && SEEN.lock().semaphore(of.device, of.handle) == Some(of.number);
        let answer = ASKED.while_there([of.handle as usize, 0], is_there, || {
            value(&functions::device(of.device)?, of.handle)
        });
        if let Some(Some(value)) = answer {
            SEEN.lock().state.reached(of.number, value);
        }
    }
}

fn value(device: &Device, semaphore: u64) -> Option<u64> {
    let mut value = 0;
    let semaphore = vk::Semaphore::from_raw(semaphore);
    let get = device.next.counter_value?;
    // SAFETY: `while_there` keeps both from being destroyed; the pointer is to a number
    let result = unsafe { get(device.handle, semaphore, &raw mut value) };
    (result == vk::Result::SUCCESS).then_some(value)
}

fn ask_fences() {
    let fences: Vec<_> = {
        let seen = SEEN.lock();
        let fences = seen.state.fences.values();
        let submitted = fences.filter(|of| matches!(of.state, FenceState::Submitted { .. }));
        submitted.cloned().collect()
    };
    for of in fences {
        let is_there = || {
            let seen = SEEN.lock();
            let now = seen.state.fences.get(&of.number);
            follows() && now.is_some_and(|now| now.state == of.state)
        };
        let answer = ASKED.while_there([of.handle as usize, 0], is_there, || {
            is_signalled(&functions::device(of.device)?, of.handle)
        });
        if answer == Some(Some(true)) {
            let mut seen = SEEN.lock();
            // It may have been reset and submitted again in between.
            let now = seen.state.fences.get(&of.number);
            if now.is_some_and(|now| now.state == of.state) {
                seen.state.signalled(of.number);
            }
        }
    }
}

fn is_signalled(device: &Device, fence: u64) -> Option<bool> {
    let fence = vk::Fence::from_raw(fence);
    let status = device.next.fence_status?;
    // SAFETY: `while_there` keeps both from being destroyed, and the fence from being reset
    let result = unsafe { status(device.handle, fence) };
    Some(result == vk::Result::SUCCESS)
}
