//! The steps of the simulated queue that run a command.

use crate::batch::SubmittedBatch;
use crate::buffer::BufferRange;
use crate::command::Command;
use crate::driver::Driver;
use crate::memory::Span;
use crate::query::query_key;
use crate::submission::TargetQueue;
use crate::usage::{VkResult, invalid_usage, out_of_host_memory};
use ash::vk::{self, Handle};
use fencepost_sim::Command as Step;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Driver {
    /// The steps that run a command.
    pub(super) fn steps(
        &mut self,
        target: &TargetQueue,
        command: Command,
        submitted: &Arc<SubmittedBatch>,
    ) -> VkResult<Vec<Step>> {
        match command {
            Command::Barrier => {
                let flag = self.new_flag(false)?;
                Ok(vec![Step::set_flag(&flag), Step::wait_flag(&flag)])
            }
            Command::ResetQueries { pool, first, count } => {
                self.reset_queries(pool, first, count, submitted)
            }
            Command::Timestamp { pool, index, early } => {
                self.mark_in_use(query_key(pool, index as usize), submitted);
                self.timestamp(target, pool, index as usize, early)
            }
            Command::Fill { to, value } => {
                let to = self.used_span(to, submitted)?;
                let run = move || store(&to, std::iter::repeat(value));
                Ok(vec![Step::run(run)])
            }
            Command::Update { to, words } => {
                let to = self.used_span(to, submitted)?;
                Ok(vec![Step::run(move || store(&to, words))])
            }
            Command::Copy { from, to } => {
                let from = self.used_span(from, submitted)?;
                let to = self.used_span(to, submitted)?;
                Ok(vec![Step::run(move || copy(&from, &to))])
            }
            Command::Dispatch {
                kernel,
                ranges,
                push,
                groups,
            } => {
                let mut spans = Vec::new();
                for range in ranges {
                    spans.push(self.used_span(range, submitted)?);
                }
                let device = Arc::downgrade(&target.shared);
                let run = move || kernel.run(&spans, push, groups, &device);
                Ok(vec![Step::run(run)])
            }
        }
    }

    fn reset_queries(
        &mut self,
        pool: vk::QueryPool,
        first: u32,
        count: u32,
        submitted: &Arc<SubmittedBatch>,
    ) -> VkResult<Vec<Step>> {
        let it = self.query_pools.find(pool)?;
        let (queries, range) = (it.queries.clone(), it.range(first, count)?);
        for index in range.clone() {
            self.mark_in_use(query_key(pool, index), submitted);
        }
        // ordered after earlier and before later commands that use the queries
        let flag = self.new_flag(false)?;
        Ok(vec![
            Step::set_flag(&flag),
            Step::run(move || queries.reset(range)),
            Step::wait_flag(&flag),
        ])
    }

    fn timestamp(
        &self,
        target: &TargetQueue,
        pool: vk::QueryPool,
        index: usize,
        early: bool,
    ) -> VkResult<Vec<Step>> {
        let queries = self.query_pools.find(pool)?.queries.clone();
        let mask = target.mask();
        if early {
            // weak: a device owns its work, and would never be dropped if the work owned the device
            let device = Arc::downgrade(&target.shared);
            let write = move || {
                let tick = device.upgrade().map_or(0, |device| device.sim.tick());
                queries.write(index, tick & mask);
            };
            return Ok(vec![Step::run(write)]);
        }
        let query = self.root.new_query().map_err(out_of_host_memory)?;
        let taken = query.clone();
        let write = move || queries.write(index, taken.read().unwrap_or(0) & mask);
        Ok(vec![Step::timestamp(&query), Step::run(write)])
    }

    /// The memory of a range that was checked by `range`.
    fn span(&self, buffer: vk::Buffer, range: (u64, u64)) -> VkResult<(Span, vk::DeviceMemory)> {
        let it = self.buffers.find(buffer)?;
        let Some((memory, offset)) = it.bound else {
            return Err(invalid_usage("a buffer has no memory"));
        };
        let whole = Span {
            block: self.memories.get(it.device, memory)?.block.clone(),
            first: offset as usize / 4,
            count: it.size as usize / 4,
        };
        Ok((whole.part(range.0, range.1), memory))
    }

    fn used_span(&mut self, range: BufferRange, submitted: &Arc<SubmittedBatch>) -> VkResult<Span> {
        let (span, memory) = self.span(range.0, range.1)?;
        self.mark_in_use(memory.as_raw(), submitted);
        Ok(span)
    }
}

fn store(to: &Span, words: impl IntoIterator<Item = u32>) {
    for (index, word) in (0..to.count).zip(words) {
        if let Some(place) = to.word(index) {
            place.store(word, Ordering::SeqCst);
        }
    }
}

fn copy(from: &Span, to: &Span) {
    let words = (0..from.count).filter_map(|index| from.word(index));
    store(to, words.map(|word| word.load(Ordering::SeqCst)));
}
