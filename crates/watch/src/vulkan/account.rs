//! Who waits for what: the queues, as the graph that fencepost's own timeouts tell of.
//!
//! Nothing is guessed. A batch that no fence and no timeline semaphore tells of is not known to be
//! complete; whether it is pending is not known either.

use std::collections::BTreeMap;

use fencepost::bindings::{
    self,
    waits::{self, End, Node, Step, Stop, Waiter, What, walk},
};

use super::seen::{
    Awaited, Batch, Device, Fence, FenceState, Queue, Semaphore, Source, State, Until, Wait,
};

/// What ends a circle. Each has a wait for a value: a binary semaphore's signal is submitted before
/// the wait for it.
pub(crate) const CIRCLE_ENDS: &str =
    "ends only if the host (vkSignalSemaphore) or a later batch signals one of these values";
/// What else can signal a value that no batch does.
const ONLY_UNSEEN: &str =
    "only the host (vkSignalSemaphore), a later batch or what cannot be seen can signal that value";

/// Of a fence that others have too.
const SHARED: &str = "it is shared with what cannot be seen, such as another process, which may \
                      have reset or signalled it";

#[derive(Debug)]
pub(crate) struct Account {
    state: State,
    /// By queue: the first batch that is sure to be pending.
    pending: BTreeMap<u64, u64>,
}

/// Something of a queue that is awaited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    account: &'a Account,
    queue: u64,
    position: u64,
    /// `None`: all of its work, as far as it was submitted.
    by: Option<Wait>,
}

impl waits::Mark for Target<'_> {
    fn stream(&self) -> u64 {
        self.queue
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn is_pending(&self) -> bool {
        let queue = self.account.queue(self.queue);
        queue.is_some_and(|queue| self.position > queue.complete)
    }
}

/// A wait that is not known to be over, in front of which a queue stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) wait: Wait,
    /// The batch that signals it; `None`: no batch does.
    pub(crate) target: Option<Target<'a>>,
}

impl Account {
    pub(crate) fn new(state: State) -> Account {
        let pending = pending_by_fences(&state);
        let mut account = Account { state, pending };
        // A wait for a binary semaphore is submitted after its signal, so each round finds all that
        // a queue tells of the next one in a chain.
        let mut again = true;
        while std::mem::take(&mut again) {
            for queue in account.state.queues.values() {
                let known = account.pending.get(&queue.number).copied();
                let mut sure = queue
                    .pending()
                    .take_while(|batch| known.is_none_or(|known| batch.position < known))
                    .filter(|batch| account.is_sure(batch));
                if let Some(sure) = sure.next().map(|batch| batch.position) {
                    account.pending.insert(queue.number, sure);
                    again = true;
                }
            }
        }
        // What a lost device had to do is neither pending nor complete.
        let devices = &account.state.devices;
        let queues = &account.state.queues;
        account.pending.retain(|number, _| {
            let device = queues.get(number).map(|queue| queue.device);
            let device = device.and_then(|number| devices.get(&number));
            device.is_none_or(|device| !device.is_lost)
        });
        account
    }

    /// Whether a batch that is not known to be complete is known to be pending, by its semaphores.
    fn is_sure(&self, batch: &Batch) -> bool {
        let waits = |wait: &Wait| match wait.until {
            Until::Value(value) => self.is_below(wait.semaphore, value),
            Until::Signal(Source::Nothing) => true,
            Until::Signal(Source::Batch { queue, position }) => {
                let sure = self.pending.get(&queue);
                sure.is_some_and(|sure| position >= *sure)
            }
            Until::Signal(Source::Acquire | Source::Unseen) => false,
        };
        let mut signals = batch.signals.iter();
        batch.waits.iter().any(waits)
            || signals.any(|&(semaphore, value)| self.is_below(semaphore, value))
    }

    /// Whether a timeline semaphore was asked and is below a value.
    fn is_below(&self, semaphore: u64, value: u64) -> bool {
        let semaphore = self.state.semaphores.get(&semaphore);
        semaphore.is_some_and(|of| of.is_timeline && !of.is_destroyed && of.value < value)
    }

    /// The sum of what is complete, which grows with every batch.
    pub(crate) fn complete(&self) -> u64 {
        let queues = self.state.queues.values().map(|queue| queue.complete);
        let values = self.state.semaphores.values();
        let values = values.filter(|of| of.is_timeline).map(|of| of.value);
        queues.chain(values).fold(0, u64::wrapping_add)
    }

    /// Whether something is known to be pending.
    pub(crate) fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The queues that are known to have work, and those that these wait for.
    pub(crate) fn busy(&self) -> Vec<&Queue> {
        let is_busy = |queue: &&Queue| self.pending.contains_key(&queue.number);
        let busy = self.state.queues.values().filter(is_busy);
        let targets = busy.flat_map(|queue| self.fronts(queue, queue.submitted));
        let targets = targets.filter_map(|front| Some(front.target?.queue));
        let awaited: Vec<u64> = targets.collect();
        let queues = self.state.queues.values();
        queues
            .filter(|queue| is_busy(queue) || awaited.contains(&queue.number))
            .collect()
    }

    pub(crate) fn queue(&self, number: u64) -> Option<&Queue> {
        self.state.queues.get(&number)
    }

    /// The queues of a device.
    #[cfg(test)]
    pub(crate) fn queues_of(&self, device: u64) -> Vec<&Queue> {
        let queues = self.state.queues.values();
        queues.filter(|queue| queue.device == device).collect()
    }

    pub(crate) fn device(&self, number: u64) -> Option<&Device> {
        self.state.devices.get(&number)
    }

    /// Whether the queue is known to have work.
    pub(crate) fn has_work(&self, queue: u64) -> bool {
        self.pending.contains_key(&queue)
    }

    /// The devices that were lost, in words: nothing is known of their queues any more.
    pub(crate) fn lost(&self) -> Vec<String> {
        let devices = self.state.devices.iter();
        let lost = devices.filter(|(_, device)| device.is_lost);
        lost.map(|(number, device)| {
            let model = &device.model;
            format!("device {number} ({model}) was lost: how far its queues were is unknown")
        })
        .collect()
    }

    /// What the thread of this number waits for.
    pub(crate) fn awaited_by(&self, tid: i32) -> Option<&Awaited> {
        self.state.threads.get(&tid)
    }

    pub(crate) fn fence(&self, number: u64) -> Option<&Fence> {
        self.state.fences.get(&number)
    }

    fn semaphore(&self, number: u64) -> Option<&Semaphore> {
        self.state.semaphores.get(&number)
    }

    fn target(&self, queue: u64, position: u64, by: Option<Wait>) -> Target<'_> {
        Target {
            account: self,
            queue,
            position,
            by,
        }
    }

    /// The waits of the first batch up to `position` that has waits that are not known to be over:
    /// first those that nothing ends, then those for queues that wait themselves, and last those
    /// that may be over.
    pub(crate) fn fronts<'a>(&'a self, queue: &'a Queue, position: u64) -> Vec<Front<'a>> {
        let of = |batch: &'a Batch| -> Vec<Front<'a>> {
            let waits = batch.waits.iter().filter(|wait| self.may_wait(wait));
            let fronts = waits.map(|wait| Front {
                batch,
                wait: *wait,
                target: self.signal_of(wait),
            });
            fronts.collect()
        };
        let batches = queue
            .pending()
            .take_while(|batch| batch.position <= position);
        let mut fronts = batches.map(of).find(|fronts| !fronts.is_empty());
        if let Some(fronts) = &mut fronts {
            fronts.sort_by_key(|front| match front.target {
                None if is_unseen(&front.wait) => 3,
                None => 0,
                Some(target) => 2 - i32::from(self.stands(target.queue, target.position)),
            });
        }
        fronts.unwrap_or_default()
    }

    /// Whether the queue has a wait, up to a position, that is not known to be over.
    fn stands(&self, queue: u64, position: u64) -> bool {
        self.queue(queue).is_some_and(|queue| {
            let mut batches = queue
                .pending()
                .take_while(|batch| batch.position <= position);
            batches.any(|batch| batch.waits.iter().any(|wait| self.may_wait(wait)))
        })
    }

    fn may_wait(&self, wait: &Wait) -> bool {
        match wait.until {
            Until::Value(value) => !self.state.has_reached(wait.semaphore, value),
            Until::Signal(Source::Batch { queue, position }) => {
                let queue = self.queue(queue);
                queue.is_some_and(|queue| position > queue.complete)
            }
            Until::Signal(Source::Nothing | Source::Acquire | Source::Unseen) => true,
        }
    }

    /// The batch that signals what is waited for.
    fn signal_of(&self, wait: &Wait) -> Option<Target<'_>> {
        match wait.until {
            Until::Value(value) => self.signal_of_value(wait.semaphore, value),
            Until::Signal(Source::Batch { queue, position }) => {
                Some(self.target(queue, position, Some(*wait)))
            }
            Until::Signal(_) => None,
        }
    }

    /// The pending batch that brings a timeline semaphore to a value, with the lowest that does.
    /// One that itself waits until the semaphore has it, or a higher one, comes too late.
    fn signal_of_value(&self, semaphore: u64, value: u64) -> Option<Target<'_>> {
        let comes_first = |batch: &&Batch| {
            let mut waits = batch
                .waits
                .iter()
                .filter(|wait| wait.semaphore == semaphore);
            !waits.any(|wait| matches!(wait.until, Until::Value(until) if until >= value))
        };
        let batches = self.state.queues.values().flat_map(|queue| {
            let pending = queue.pending().filter(comes_first);
            let pending = pending.map(|batch| (queue.number, batch));
            pending.collect::<Vec<_>>()
        });
        let signals = batches.flat_map(|(queue, batch)| {
            let signals = batch.signals.iter();
            signals.map(move |&(of, value)| (of, value, queue, batch.position))
        });
        let found = signals
            .filter(|&(of, reaches, ..)| of == semaphore && reaches >= value)
            .min_by_key(|&(_, reaches, ..)| reaches);
        let until = Until::Value(value);
        found.map(|(_, _, queue, position)| {
            self.target(queue, position, Some(Wait { semaphore, until }))
        })
    }

    /// The chain from all of a queue's work to what is stuck: in words, how many queues it has, and
    /// whether it is a circle. `None` where the queue itself is at work.
    pub(crate) fn chain(&self, queue: &Queue) -> (Option<String>, usize, bool) {
        let first = self.target(queue.number, queue.submitted, None);
        let (steps, stop) = walk(first, |target: &Target<'_>| {
            let queue = self.queue(target.queue)?;
            let fronts = self.fronts(queue, target.position);
            let front = fronts.first()?;
            Some(Step {
                marker: front.target?,
                in_work: false,
                on_device: true,
                after: front.batch.position - 1,
            })
        });
        let circle = matches!(stop, Stop::Circle);
        let end = match (stop, steps.last()) {
            (Stop::Circle, _) => End::Circle(CIRCLE_ENDS),
            (Stop::NoWait, Some(last)) => End::Other(self.end(&last.marker)),
            _ => End::GoesOn,
        };
        let told = waits::tell(steps.len(), |at| node(&steps[at].marker), true, &end);
        (told.text, steps.len(), circle)
    }

    /// What a queue that waits for no other does, behind its name or `it`.
    fn end(&self, target: &Target<'_>) -> String {
        let Some(queue) = self.queue(target.queue) else {
            return "is not there any more".into();
        };
        let fronts = self.fronts(queue, target.position);
        match fronts.first() {
            Some(front) => {
                let remark = self.remark(front).map(|remark| format!(": {remark}"));
                format!(
                    "waits for {}{}",
                    self.words(front),
                    remark.unwrap_or_default()
                )
            }
            None => format!(
                "has {} pending, in front of which it waits for nothing",
                batches(target.position.saturating_sub(queue.complete))
            ),
        }
    }

    /// What is waited for, behind `waits for`.
    pub(crate) fn words(&self, front: &Front<'_>) -> String {
        match front.target {
            Some(target) => node(&target).to_string().trim_start_matches(" for ").into(),
            None => self.awaited(&front.wait),
        }
    }

    /// `value 2 of timeline semaphore 1, which is at 0`.
    fn awaited(&self, wait: &Wait) -> String {
        match wait.until {
            Until::Value(value) => {
                let at = self.semaphore(wait.semaphore).map(|of| of.value);
                let at = at.map_or_else(String::new, |at| format!(", which is at {at}"));
                format!(
                    "value {value} of {}{at}",
                    self.semaphore_name(wait.semaphore)
                )
            }
            Until::Signal(_) => self.semaphore_name(wait.semaphore),
        }
    }

    /// What one would not expect of a wait, or what cannot be seen of it.
    pub(crate) fn remark(&self, front: &Front<'_>) -> Option<String> {
        let destroyed = self.semaphore(front.wait.semaphore);
        if destroyed.is_some_and(|of| of.is_destroyed) {
            return Some("that semaphore was destroyed since".into());
        }
        if front.target.is_some() {
            return None;
        }
        Some(match front.wait.until {
            Until::Value(_) => format!("no batch that was submitted signals it; {ONLY_UNSEEN}"),
            Until::Signal(Source::Nothing) => {
                "no signal of that semaphore was submitted before this wait".into()
            }
            Until::Signal(Source::Acquire) => {
                "the presentation engine signals it once it lets go of the image that \
                 vkAcquireNextImageKHR gave: whether it has cannot be seen"
                    .into()
            }
            Until::Signal(_) => "it is shared with what cannot be seen, such as another \
                                 process: whether that has signalled it is unknown"
                .into(),
        })
    }

    /// What a thread waits for in a call, behind `for`, and what else is known of it.
    pub(crate) fn words_of_thread(&self, awaited: &Awaited) -> (String, Option<String>) {
        match awaited {
            Awaited::Queue(number) => (self.queue_name(*number, true), None),
            Awaited::Device(number) => (format!("device {number}"), None),
            Awaited::Values(values, any) => {
                let open = values
                    .iter()
                    .filter(|&&(semaphore, value)| !self.state.has_reached(semaphore, value));
                let open: Vec<_> = open.collect();
                let Some(&&(semaphore, value)) = open.first() else {
                    return ("values that were reached".into(), None);
                };
                let until = Until::Value(value);
                let words = self.awaited(&Wait { semaphore, until });
                let remark = match self.signal_of_value(semaphore, value) {
                    Some(target) => format!("{} signals it", target.batch_name()),
                    None => format!("no batch that was submitted signals it; {ONLY_UNSEEN}"),
                };
                (words + &others(open.len(), *any), Some(remark))
            }
            Awaited::Fences(fences, any) => {
                let fences = fences.iter().filter_map(|number| self.fence(*number));
                let open: Vec<_> = fences
                    .filter(|fence| fence.is_shared || fence.state != FenceState::Signalled)
                    .collect();
                let Some(fence) = open.first() else {
                    return ("fences that were signalled".into(), None);
                };
                let words = named("fence", fence.number, fence.name.as_ref());
                let remark = self.remark_of_fence(fence);
                (words + &others(open.len(), *any), Some(remark))
            }
            Awaited::Image(number) => {
                let words = format!("an image of {}", self.swapchain_name(*number));
                (words, None)
            }
            Awaited::Present(number, id) => self.words_of_present(*number, *id),
        }
    }

    /// What the presentation engine makes a thread wait for.
    fn words_of_present(&self, number: u64, id: u64) -> (String, Option<String>) {
        let words = format!("present {id} of {}", self.swapchain_name(number));
        let swapchain = self.state.swapchains.get(&number);
        let remark = match swapchain.map_or(0, |of| of.presented) {
            0 => "no image of it was presented with an id".into(),
            highest if highest < id => {
                format!("no image of it was presented with that id: the highest is {highest}")
            }
            _ => "how far the presentation engine is cannot be seen".into(),
        };
        (words, Some(remark))
    }

    fn swapchain_name(&self, number: u64) -> String {
        let of = self.state.swapchains.get(&number);
        named("swapchain", number, of.and_then(|of| of.name.as_ref()))
    }

    fn remark_of_fence(&self, fence: &Fence) -> String {
        match fence.state {
            FenceState::Submitted { queue, position } if fence.is_shared => {
                let target = self.target(queue, position, None);
                format!("{} signals it, but {SHARED}", target.batch_name())
            }
            _ if fence.is_shared => SHARED.into(),
            FenceState::NeverSubmitted => {
                "that fence was never submitted, so nothing signals it".into()
            }
            FenceState::Reset => {
                "that fence was reset and not submitted since, so nothing signals it".into()
            }
            FenceState::Submitted { queue, position } => {
                let target = self.target(queue, position, None);
                format!("{} signals it", target.batch_name())
            }
            FenceState::Acquire => "the presentation engine signals it".into(),
            FenceState::Unseen => "it was imported: what signals it cannot be seen".into(),
            FenceState::Signalled => "it is signalled".into(),
        }
    }

    fn semaphore_name(&self, number: u64) -> String {
        let of = self.semaphore(number);
        let kind = match of.is_some_and(|of| of.is_timeline) {
            true => "timeline semaphore",
            false => "binary semaphore",
        };
        named(kind, number, of.and_then(|of| of.name.as_ref()))
    }

    /// `queue 1`, and of which device.
    pub(crate) fn queue_name(&self, number: u64, full: bool) -> String {
        let queue = self.queue(number);
        let name = named("queue", number, queue.and_then(|queue| queue.name.as_ref()));
        match queue.filter(|_| full) {
            Some(queue) => format!("{name} of device {}", queue.device),
            None => name,
        }
    }
}

/// By queue: the first batch whose fence tells that it is pending.
fn pending_by_fences(state: &State) -> BTreeMap<u64, u64> {
    let mut pending = BTreeMap::new();
    for fence in state.fences.values() {
        let FenceState::Submitted { queue, position } = fence.state else {
            continue;
        };
        let complete = state.queues.get(&queue).map(|queue| queue.complete);
        // A shared one may be unsignalled since others have reset it.
        if !fence.is_shared && complete.is_some_and(|complete| position > complete) {
            let first = pending.entry(queue).or_insert(position);
            *first = position.min(*first);
        }
    }
    pending
}

/// Whether nobody can see that the wait is over.
fn is_unseen(wait: &Wait) -> bool {
    matches!(wait.until, Until::Signal(Source::Acquire | Source::Unseen))
}

/// Of several that are waited for, behind the first.
fn others(count: usize, any: bool) -> String {
    match (count.saturating_sub(1), any) {
        (0, _) => String::new(),
        (others, true) => format!(" or any of {others} others"),
        (others, false) => format!(" and {others} others"),
    }
}

fn named(kind: &str, number: u64, name: Option<&String>) -> String {
    match name {
        Some(name) => format!("{kind} {number} \"{name}\""),
        None => format!("{kind} {number}"),
    }
}

pub(crate) fn batches(count: u64) -> String {
    match count {
        1 => "1 batch".into(),
        count => format!("{count} batches"),
    }
}

impl Target<'_> {
    fn batch_name(&self) -> String {
        let queue = self.account.queue_name(self.queue, true);
        format!("batch {} of {queue}", self.position)
    }
}

fn node(target: &Target<'_>) -> Node {
    let account = target.account;
    let what = match target.by {
        None => "the work of".into(),
        Some(wait) => {
            let awaited = match wait.until {
                Until::Value(value) => {
                    format!(
                        "value {value} of {}",
                        account.semaphore_name(wait.semaphore)
                    )
                }
                Until::Signal(_) => account.semaphore_name(wait.semaphore),
            };
            format!("{awaited}, signalled by batch {} of", target.position)
        }
    };
    Node {
        stream: account.queue_name(target.queue, false),
        full: account.queue_name(target.queue, true),
        value: 0,
        at: bindings::unknown_place(),
        what: What::Other(what.into()),
        waiter: Waiter::Stream,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::seen::{Kind, Seen},
        *,
    };

    /// A program with a device and two queues, whose semaphores have handles from 1 on.
    struct Program(Seen);

    const QUEUES: [u64; 2] = [1, 2];
    const FENCE: u64 = 9;

    impl Program {
        fn new() -> Program {
            let mut seen = Seen::new();
            let device = seen.created_device("a GPU".into());
            for queue in QUEUES {
                seen.got_queue(device, 0x100 + queue, 0);
            }
            for handle in 1..=2 {
                seen.created_semaphore(device, handle, Some(0), false);
            }
            seen.created_semaphore(device, 3, None, false);
            seen.created_fence(device, FENCE, false);
            Program(seen)
        }

        fn submit(&mut self, queue: u64, waits: &[(u64, u64)], signals: &[(u64, u64)]) {
            let waits = waits.iter();
            let waits: Vec<Wait> = waits
                .filter_map(|&(handle, value)| self.0.wait(1, handle, value))
                .collect();
            self.0.submit(queue, Kind::Submit, waits);
            for &(handle, value) in signals {
                self.0.signal(queue, 1, handle, value);
            }
        }

        fn account(&mut self) -> Account {
            self.0.state.settle();
            Account::new(self.0.state.clone())
        }
    }

    fn busy(account: &Account) -> Vec<u64> {
        let busy = account.busy().into_iter();
        busy.map(|queue| queue.number).collect()
    }

    #[test]
    fn queues_that_wait_for_each_other_are_a_circle() {
        let mut program = Program::new();
        program.submit(1, &[(1, 1)], &[(2, 1)]);
        program.submit(2, &[(2, 1)], &[(1, 1)]);
        let account = program.account();
        assert_eq!(busy(&account), QUEUES);
        let (text, queues, circle) = account.chain(account.queue(1).unwrap());
        assert!(circle && queues == 3);
        let text = text.unwrap();
        for told in [
            "ends only if the host (vkSignalSemaphore) or a later batch signals one of",
            "queue 1 waits for value 1 of timeline semaphore 1, signalled by batch 1 of queue 2",
            "queue 2 waits for value 1 of timeline semaphore 2, signalled by batch 1 of queue 1",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }

    #[test]
    fn what_waits_for_a_value_itself_does_not_signal_it() {
        let mut program = Program::new();
        // The host was to signal 1 and 3.
        program.submit(1, &[(1, 1)], &[(1, 2)]);
        program.submit(2, &[(1, 3)], &[(1, 4)]);
        let account = program.account();
        for queue in QUEUES {
            let queue = account.queue(queue).unwrap();
            assert!(account.fronts(queue, 1)[0].target.is_none());
            assert!(!account.chain(queue).2);
        }
        // The batch that waits for 1 does bring 2.
        let found = account.signal_of_value(1, 2).unwrap();
        assert_eq!((found.queue, found.position), (1, 1));
    }

    #[test]
    fn a_chain_ends_at_the_value_that_nothing_signals() {
        let mut program = Program::new();
        program.submit(1, &[(1, 5)], &[(3, 0)]);
        program.submit(2, &[(3, 0)], &[(2, 1)]);
        let account = program.account();
        let (text, _, circle) = account.chain(account.queue(2).unwrap());
        let text = text.unwrap();
        assert!(
            !circle
                && text.contains("stuck is queue 1 of device 1: it waits for value 5 of timeline")
                && text.contains("queue 2 waits for binary semaphore 3, signalled by batch 1"),
            "{text}"
        );
    }

    #[test]
    fn what_nothing_ends_is_told_first_of_several_waits() {
        let mut program = Program::new();
        program.submit(1, &[], &[(1, 1)]);
        program.submit(2, &[(1, 1), (2, 1)], &[]);
        let account = program.account();
        let fronts = account.fronts(account.queue(2).unwrap(), 1);
        let semaphores: Vec<u64> = fronts.iter().map(|front| front.wait.semaphore).collect();
        assert_eq!(semaphores, [2, 1]);
        assert!(account.remark(&fronts[0]).is_some() && account.remark(&fronts[1]).is_none());
    }

    #[test]
    fn an_image_that_may_be_there_is_told_last() {
        let mut program = Program::new();
        let image = program.0.semaphore(1, 3);
        program.0.will_signal(image, Source::Acquire);
        program.submit(1, &[(3, 0), (1, 1)], &[]);
        let account = program.account();
        let fronts = account.fronts(account.queue(1).unwrap(), 1);
        let semaphores: Vec<u64> = fronts.iter().map(|front| front.wait.semaphore).collect();
        assert_eq!(semaphores, [1, 3]);
        let remark = account.remark(&fronts[1]).unwrap();
        assert!(remark.contains("vkAcquireNextImageKHR"), "{remark}");
        // The image alone makes no queue busy.
        program.0.state.reached(1, 1);
        assert!(!program.account().is_busy());
    }

    #[test]
    fn a_batch_that_nothing_tells_of_is_neither_complete_nor_busy() {
        let mut program = Program::new();
        program.submit(1, &[], &[]);
        program.submit(2, &[], &[]);
        program.0.submit_fence(2, 1, FENCE);
        let account = program.account();
        assert_eq!(busy(&account), [2]);
        assert_eq!(account.queue(1).unwrap().complete, 0);
    }

    #[test]
    fn a_fence_tells_of_all_that_its_queue_was_given_before() {
        let mut program = Program::new();
        program.submit(1, &[], &[(3, 0)]);
        program.submit(2, &[(3, 0)], &[]);
        program.submit(2, &[], &[]);
        program.0.submit_fence(2, 1, FENCE);
        assert_eq!(busy(&program.account()), QUEUES);
        let fence = program.0.fence(1, FENCE).unwrap();
        program.0.state.signalled(fence);
        let account = program.account();
        assert!(!account.is_busy());
        // The first batch must be complete too: the second has waited for its semaphore.
        assert_eq!(account.queue(1).unwrap().complete, 1);
    }

    #[test]
    fn a_complete_batch_tells_of_the_values_that_it_has_waited_for() {
        let mut program = Program::new();
        program.submit(1, &[], &[(1, 3)]);
        program.submit(2, &[(1, 3)], &[]);
        program.0.submit_fence(2, 1, FENCE);
        let fence = program.0.fence(1, FENCE).unwrap();
        program.0.state.signalled(fence);
        assert!(!program.account().is_busy());
        assert_eq!(program.account().queue(1).unwrap().complete, 1);
    }

    #[test]
    fn a_fence_that_is_used_again_is_another_wait() {
        let mut program = Program::new();
        let fence = program.0.fence(1, FENCE).unwrap();
        let awaited = Awaited::Fences(vec![fence], false);
        program.0.state.threads.insert(7, awaited);
        program.0.set_fence(1, FENCE, FenceState::Reset);
        assert!(program.account().awaited_by(7).is_none());
    }

    #[test]
    fn a_value_may_come_from_a_batch_that_is_yet_to_be_submitted() {
        let mut program = Program::new();
        program.submit(1, &[(1, 1)], &[]);
        let account = program.account();
        let fronts = account.fronts(account.queue(1).unwrap(), 1);
        let remark = account.remark(&fronts[0]).unwrap();
        assert!(remark.contains("a later batch"), "{remark}");
    }

    #[test]
    fn a_wait_takes_the_signal_of_a_binary_semaphore() {
        let mut program = Program::new();
        program.submit(1, &[], &[(3, 0)]);
        program.submit(2, &[(3, 0)], &[]);
        program.submit(2, &[(3, 0)], &[]);
        let account = program.account();
        let queue = account.queue(2).unwrap();
        let remark = |position| {
            let mut pending = queue.pending();
            let batch = pending.find(|batch| batch.position == position).unwrap();
            let wait = batch.waits[0];
            let target = account.signal_of(&wait);
            account.remark(&Front {
                batch,
                wait,
                target,
            })
        };
        assert_eq!(remark(1), None);
        assert!(
            remark(2)
                .unwrap()
                .contains("no signal of that semaphore was submitted")
        );
    }

    #[test]
    fn a_submit_that_fails_changes_nothing() {
        let mut program = Program::new();
        program.submit(1, &[], &[(3, 0)]);
        program.submit(2, &[(3, 0)], &[(3, 0)]);
        program.submit(2, &[(1, 1)], &[]);
        program.0.take_back(2, 0);
        assert!(!program.account().is_busy());
        program.submit(2, &[(3, 0)], &[]);
        let account = program.account();
        let queue = account.queue(2).unwrap();
        assert_eq!(queue.submitted, 1);
        let wait = queue.pending().next().unwrap().waits[0];
        assert_eq!(account.signal_of(&wait).map(|target| target.queue), Some(1));
    }

    #[test]
    fn a_device_that_was_lost_is_named() {
        let mut program = Program::new();
        program.submit(1, &[(1, 1)], &[]);
        assert!(program.account().is_busy() && program.account().lost().is_empty());
        program.0.lost_device(1);
        let account = program.account();
        assert!(!account.is_busy());
        let told = "device 1 (a GPU) was lost: how far its queues were is unknown";
        assert_eq!(account.lost(), [told]);
    }

    #[test]
    fn the_oldest_batches_are_dropped_and_that_is_said() {
        let mut program = Program::new();
        for _ in 0..5000 {
            program.submit(1, &[(1, 1)], &[]);
        }
        let account = program.account();
        let queue = account.queue(1).unwrap();
        assert!(queue.lacks_batches() && queue.pending().count() < 5000);
        assert_eq!(queue.submitted, 5000);
    }

    /// What tells of the batches of a large program, none of which is complete.
    #[derive(Clone, Copy, Debug)]
    enum Told {
        ValuesAndFences,
        TheLastFence,
        Nothing,
    }

    /// A program of 16 queues that have 2,000 batches each, and of 10,000 fences.
    fn large(told: Told) -> Program {
        const QUEUES: u64 = 16;
        const FENCES: u64 = 10_000;
        let (semaphore, fence) = (|of: u64| 0x1000 + of, |of: u64| 0x10_0000 + of);
        let mut program = Program::new();
        for queue in 3..=QUEUES {
            program.0.got_queue(1, 0x100 + queue, 0);
        }
        (0..=QUEUES).for_each(|of| {
            program
                .0
                .created_semaphore(1, semaphore(of), Some(0), false)
        });
        (0..FENCES).for_each(|of| program.0.created_fence(1, fence(of), false));
        for batch in 1..=2000 {
            for queue in 1..=QUEUES {
                let number = batch * QUEUES + queue;
                match told {
                    Told::ValuesAndFences => {
                        let waits = [(semaphore(queue - 1), batch)];
                        program.submit(queue, &waits, &[(semaphore(queue), batch)]);
                        program.0.submit_fence(queue, 1, fence(number % FENCES));
                    }
                    _ => program.submit(queue, &[], &[]),
                }
            }
        }
        if let Told::TheLastFence = told {
            (1..=QUEUES).for_each(|queue| program.0.submit_fence(queue, 1, fence(queue)));
        }
        program
    }

    /// Prints what is slowest of it.
    #[test]
    #[ignore = "measures: run it alone, in release, with --nocapture"]
    fn what_an_account_costs() {
        use std::time::Instant;

        for told in [Told::ValuesAndFences, Told::TheLastFence, Told::Nothing] {
            let begun = Instant::now();
            let mut program = large(told);
            let submit = begun.elapsed() / 32_000;
            let begun = Instant::now();
            program.0.state.settle();
            let settle = begun.elapsed();
            let begun = Instant::now();
            let state = program.0.state.clone();
            let copy = begun.elapsed();
            let begun = Instant::now();
            let account = Account::new(state);
            let pending = begun.elapsed();
            let begun = Instant::now();
            for queue in account.busy() {
                let (chain, fronts) = (account.chain(queue), account.fronts(queue, u64::MAX));
                assert!(chain.1 > 0 && fronts.len() < 2);
            }
            let telling = begun.elapsed();
            println!(
                "{told:?}: submit {submit:?}, settle {settle:?}, copy {copy:?}, what is pending \
                 {pending:?}, telling {telling:?}"
            );
        }
    }
}
