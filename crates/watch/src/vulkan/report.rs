//! What a report says of Vulkan's queues.

use serde::Serialize;

use super::{
    account::{Account, Front, batches},
    seen::{Kind, Queue},
};
use crate::{
    report::{words, wrap},
    seen,
};

#[derive(Debug, Serialize)]
pub(crate) struct QueueReport {
    queue: String,
    /// As the program has it.
    handle: String,
    device: String,
    family: u32,
    pending: u64,
    submitted: u64,
    /// What it waits for.
    waits_for: Option<String>,
    waits_since_ms: Option<u64>,
    /// The end of the chain of waits.
    stuck: Option<String>,
    last: &'static str,
    last_ms_ago: u64,
    remarks: Vec<String>,
}

impl QueueReport {
    /// Also says whether the queue's waits form a circle.
    pub(crate) fn new(account: &Account, queue: &Queue) -> (QueueReport, bool) {
        let (chain, queues, circle) = account.chain(queue);
        let fronts = account.fronts(queue, queue.submitted);
        let first = fronts.first();
        let device = account.device(queue.device);
        let report = QueueReport {
            queue: account.queue_name(queue.number, true),
            handle: format!("{:#x}", queue.handle),
            device: device.map_or_else(String::new, |device| device.model.clone()),
            family: queue.family,
            pending: queue.submitted.saturating_sub(queue.complete),
            submitted: queue.submitted,
            waits_for: first.map(|front| words_of_wait(account, queue, front)),
            waits_since_ms: first.map(|front| seen::now().saturating_sub(front.batch.at)),
            // A shorter chain says no more than the lines of its queues.
            stuck: chain.filter(|_| queues > 2 || circle),
            last: last(queue.last.0),
            last_ms_ago: seen::now().saturating_sub(queue.last.1),
            remarks: remarks(account, queue, &fronts),
        };
        (report, circle)
    }

    pub(crate) fn write(&self, text: &mut String) {
        let head = format!(
            "{} ({}, queue family {}): {} pending, {} submitted",
            self.queue,
            self.device,
            self.family,
            batches(self.pending),
            self.submitted
        );
        wrap(text, "", &head);
        if let Some(waits_for) = &self.waits_for {
            let since = self.waits_since_ms.map(|ms| format!(", for {}", words(ms)));
            let since = since.unwrap_or_default();
            wrap(text, "    ", &format!("{waits_for}{since}"));
        }
        for remark in self.remarks.iter().chain(&self.stuck) {
            wrap(text, "    ", remark);
        }
        let last = format!(
            "last submitted: {}, {} ago",
            self.last,
            words(self.last_ms_ago)
        );
        wrap(text, "    ", &last);
    }
}

fn words_of_wait(account: &Account, queue: &Queue, front: &Front<'_>) -> String {
    let position = front.batch.position;
    let before = (position - 1).saturating_sub(queue.complete);
    let mut words = format!("batch {position} waits for {}", account.words(front));
    if before > 0 {
        words.push_str(&format!(
            ", or the queue is at the {} before",
            batches(before)
        ));
    }
    words
}

fn remarks(account: &Account, queue: &Queue, fronts: &[Front<'_>]) -> Vec<String> {
    let mut remarks: Vec<String> = fronts
        .first()
        .and_then(|of| account.remark(of))
        .into_iter()
        .collect();
    for front in fronts.iter().skip(1) {
        let remark = account.remark(front).map(|remark| format!(": {remark}"));
        let words = account.words(front);
        remarks.push(format!(
            "it also waits for {words}{}",
            remark.unwrap_or_default()
        ));
    }
    if queue.lacks_batches() {
        remarks.push("older batches of it were not kept".into());
    } else if fronts.is_empty() && account.has_work(queue.number) {
        remarks.push("no batch of it waits: the device is at work, or hangs".into());
    }
    if account
        .device(queue.device)
        .is_some_and(|device| device.is_lost)
    {
        remarks.push("its device was lost".into());
    }
    remarks
}

fn last(kind: Kind) -> &'static str {
    match kind {
        Kind::Nothing => "nothing that was seen",
        Kind::Submit => "a batch of vkQueueSubmit",
        Kind::SparseBinding => "a batch of vkQueueBindSparse",
        Kind::Fence => "a fence alone",
        Kind::Present => "an image, by vkQueuePresentKHR",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::seen::Seen, *};

    #[test]
    fn a_queue_that_waits_for_nothing_is_said_to_be_at_work() {
        let mut seen = Seen::new();
        let device = seen.created_device("a GPU".into());
        for handle in 1..=2 {
            seen.got_queue(device, handle, 0);
            seen.submit(handle, Kind::Submit, Vec::new());
        }
        seen.created_fence(device, 9, false);
        seen.submit_fence(1, device, 9);
        let account = Account::new(seen.state);
        let told = |number| {
            let queue = account.queue(number).unwrap();
            let mut text = String::new();
            QueueReport::new(&account, queue).0.write(&mut text);
            text.contains("no batch of it waits: the device is at work, or hangs")
        };
        // Nothing tells whether the second queue is done.
        assert!(told(1) && !told(2));
    }
}
