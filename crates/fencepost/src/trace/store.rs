//! Finished spans, in little memory.
//!
//! They are in blocks, each with its own texts and attributes. So when the oldest spans are
//! dropped, everything that belongs to them goes too, and memory is bounded whatever names they
//! have. A block that is full never changes again, so that a picture shares it. Names that the
//! trace [knows](super::known) are not in the blocks.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{
    picture,
    text::Text,
    value::{Noted, Value},
};

/// A span or a mark that is over. Times are positions: see [`axis`](super::axis); of a thread they
/// are nanoseconds since the trace began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// NaN where nothing tells it.
    pub(super) start: f64,
    /// NaN where nothing tells it, and of a mark.
    pub(super) length: f64,
    /// The values of the two markers on their stream, which are in the order of the stream.
    pub(super) values: [u64; 2],
    pub(super) track: u32,
    /// See [`NameOf`].
    name: u32,
    /// One more than the first of its attributes in the block; 0 for none.
    attributes: u32,
    /// One more than the text of the block that says why it failed; 0 where it did not.
    failure: u32,
    pub(super) is_mark: bool,
}

/// Marks the number of a name as one of a [known](super::known) name.
const KNOWN: u32 = 1 << 31;

/// What a record is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameOf {
    /// The known name with this number.
    Known(u32),
    /// A text of its block.
    Block(u32),
}

impl Record {
    /// A span of a thread, with a known name and without attributes. Times are nanoseconds since
    /// the trace began.
    #[inline]
    pub(super) fn of_thread(track: u32, name: u32, start: u64, length: u64) -> Record {
        Record {
            // As signed numbers, which a processor converts by one instruction.
            start: start as i64 as f64,
            length: length as i64 as f64,
            values: [0, 0],
            track,
            name: name | KNOWN,
            attributes: 0,
            failure: 0,
            is_mark: false,
        }
    }

    pub(super) fn name(&self) -> NameOf {
        match self.name & KNOWN {
            0 => NameOf::Block(self.name),
            _ => NameOf::Known(self.name & !KNOWN),
        }
    }

    /// Whether it is a mark that the trace made itself, where a gate was opened.
    fn is_of_gate(&self) -> bool {
        self.is_mark && self.values[0] == 0 && self.values[1] != 0
    }
}

/// The name that is told of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named<'a> {
    Known(u32),
    Text(&'a Text),
}

/// What is told of a record: the rest of it.
#[derive(Clone, Debug)]
pub(super) struct Told<'a> {
    pub(super) track: u32,
    pub(super) name: Named<'a>,
    pub(super) attributes: &'a [Noted],
    pub(super) start: f64,
    pub(super) length: f64,
    pub(super) values: [u64; 2],
    pub(super) is_mark: bool,
    pub(super) failure: Option<&'a str>,
}

/// So many records are in a block.
pub(super) const BLOCK: usize = 4096;

#[derive(Clone, Default)]
pub(super) struct Block {
    pub(super) records: Vec<Record>,
    pub(super) texts: Vec<Arc<str>>,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Copy)]
struct Attribute {
    name: u32,
    value: picture::Value,
    is_last: bool,
}

impl Block {
    /// The attributes of one of its records: name and value, whose texts are the block's.
    pub(super) fn attributes_of(
        &self,
        record: &Record,
    ) -> impl Iterator<Item = (u32, picture::Value)> {
        let first = (record.attributes as usize).checked_sub(1);
        let rest = first.and_then(|first| self.attributes.get(first..));
        let rest = rest.unwrap_or_default();
        let count = rest
            .iter()
            .position(|a| a.is_last)
            .map_or(0, |last| last + 1);
        rest[..count].iter().map(|a| (a.name, a.value))
    }
}

impl Record {
    /// Why it failed, if it did: a text of the block.
    pub(super) fn failure(&self) -> Option<u32> {
        self.failure.checked_sub(1)
    }
}

/// So many texts are found without a look into the table.
const NEAR: usize = 64;

pub(super) struct Store {
    full: VecDeque<Arc<Block>>,
    /// The block that is being filled.
    filling: Block,
    texts: HashMap<Arc<str>, u32>,
    /// Numbers of texts, by their ends: what is found there need not be looked up.
    near: [u32; NEAR],
    /// How many of the first block are dropped.
    gone: usize,
    capacity: usize,
    pub(super) dropped: u64,
    /// How many of those that are here have failed.
    pub(super) failed: usize,
    /// How many of those that are here are of gates.
    pub(super) of_gates: usize,
}

impl Store {
    pub(super) fn new(capacity: usize) -> Store {
        Store {
            full: VecDeque::new(),
            filling: Block::default(),
            texts: HashMap::new(),
            near: [0; NEAR],
            gone: 0,
            capacity: capacity.max(1),
            dropped: 0,
            failed: 0,
            of_gates: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.full.len() * BLOCK + self.filling.records.len() - self.gone
    }

    /// Adds a record. If there are more than the capacity then, the oldest goes.
    pub(super) fn add(&mut self, told: &Told<'_>) {
        let failure = told.failure.map_or(0, |text| self.text(text) + 1);
        let record = Record {
            start: told.start,
            length: told.length,
            values: told.values,
            track: told.track,
            name: match told.name {
                Named::Known(number) => number | KNOWN,
                Named::Text(text) => self.name(text),
            },
            attributes: self.note(told.attributes),
            failure,
            is_mark: told.is_mark,
        };
        self.failed += usize::from(failure > 0);
        self.of_gates += usize::from(record.is_of_gate());
        self.extend(&[record]);
    }

    /// Adds records that need nothing of a block, as they are. The oldest go, as above.
    pub(super) fn extend(&mut self, mut records: &[Record]) {
        while !records.is_empty() {
            let filling = &mut self.filling.records;
            if filling.capacity() == 0 {
                filling.reserve_exact(BLOCK.min(self.capacity.saturating_add(1)));
            }
            let room = records.len().min(BLOCK - filling.len());
            let (now, later) = records.split_at(room);
            filling.extend_from_slice(now);
            records = later;
            self.drop_oldest(self.len().saturating_sub(self.capacity));
            if self.filling.records.len() >= BLOCK {
                self.texts.clear();
                let mut full = std::mem::take(&mut self.filling);
                full.texts.shrink_to_fit();
                full.attributes.shrink_to_fit();
                self.full.push_back(Arc::new(full));
            }
        }
    }

    /// Drops so many of the oldest records.
    fn drop_oldest(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.full.front().map_or(&self.filling, |first| &**first);
            let left = first.records.get(self.gone..).unwrap_or_default();
            let oldest = &left[..count.min(left.len())];
            if oldest.is_empty() {
                return;
            }
            let is_failed = |record: &&Record| record.failure > 0;
            self.failed -= oldest.iter().filter(is_failed).count();
            self.of_gates -= oldest.iter().filter(|record| record.is_of_gate()).count();
            let dropped = oldest.len();
            self.dropped += dropped as u64;
            self.gone += dropped;
            count -= dropped;
            if self.gone >= BLOCK && self.full.pop_front().is_some() {
                self.gone = 0;
            }
        }
    }

    fn name(&mut self, name: &Text) -> u32 {
        self.find(name.bytes(), |store| store.look_up(&name.get()))
    }

    /// The number of a text of the block that is being filled.
    fn text(&mut self, text: &str) -> u32 {
        self.find(text.as_bytes(), |store| store.look_up(text))
    }

    #[inline]
    fn find(&mut self, bytes: &[u8], look_up: impl FnOnce(&mut Store) -> u32) -> u32 {
        let ends = [bytes.first(), bytes.last()].map(|byte| byte.map_or(0, |b| usize::from(*b)));
        let place = (ends[0] * 5 + ends[1] * 3 + bytes.len()) % NEAR;
        let near = self.near[place];
        match self.filling.texts.get(near as usize) {
            Some(known) if known.as_bytes() == bytes => near,
            _ => {
                let number = look_up(self);
                self.near[place] = number;
                number
            }
        }
    }

    #[cold]
    fn look_up(&mut self, text: &str) -> u32 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let number = self.filling.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.filling.texts.push(text.clone());
        self.texts.insert(text, number);
        number
    }

    fn note(&mut self, attributes: &[Noted]) -> u32 {
        let first = self.filling.attributes.len() as u32 + 1;
        for noted in attributes {
            let value = match &noted.value {
                Value::Signed(value) => picture::Value::Signed(*value),
                Value::Unsigned(value) => picture::Value::Unsigned(*value),
                Value::Float(value) => picture::Value::Float(*value),
                Value::Bool(value) => picture::Value::Bool(*value),
                Value::Text(value) => picture::Value::Text(self.text(value)),
            };
            let name = self.name(&noted.name);
            self.filling.attributes.push(Attribute {
                name,
                value,
                is_last: false,
            });
        }
        match self.filling.attributes.last_mut() {
            Some(last) if !attributes.is_empty() => {
                last.is_last = true;
                first
            }
            _ => 0,
        }
    }

    /// Tells the tracks of all records.
    pub(super) fn each_track(&self, mut tell: impl FnMut(u32)) {
        let blocks = self.full.iter().map(|block| &**block);
        let records = blocks
            .chain([&self.filling])
            .flat_map(|block| &block.records);
        let mut last = None;
        for record in records.skip(self.gone) {
            if last.replace(record.track) != Some(record.track) {
                tell(record.track);
            }
        }
    }

    /// All blocks, and how many records of the first are dropped. Takes a copy of one block.
    pub(super) fn blocks(&self) -> (Vec<Arc<Block>>, usize) {
        let mut blocks: Vec<_> = self.full.iter().cloned().collect();
        if !self.filling.records.is_empty() {
            blocks.push(Arc::new(self.filling.clone()));
        }
        (blocks, self.gone)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn told(name: &str, failure: Option<&'static str>) -> Told<'static> {
        Told {
            track: 0,
            name: Named::Text(Box::leak(Box::new(Text::new(name)))),
            attributes: &[],
            start: 1.0,
            length: 2.0,
            values: [1, 2],
            is_mark: false,
            failure,
        }
    }

    fn names(store: &Store) -> Vec<String> {
        let (blocks, gone) = store.blocks();
        let names = blocks.iter().flat_map(|block| {
            let name = |record: &Record| match record.name() {
                NameOf::Block(text) => block.texts[text as usize].to_string(),
                NameOf::Known(number) => format!("known {number}"),
            };
            block.records.iter().map(name)
        });
        names.skip(gone).collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes for 20 blocks of spans")]
    fn a_finished_span_takes_no_more_than_sixty_bytes() {
        assert!(size_of::<Record>() <= 56, "{}", size_of::<Record>());
        let mut store = Store::new(100 * BLOCK);
        for _ in 0..20 * BLOCK {
            store.add(&told("forward", None));
        }
        let (blocks, _) = store.blocks();
        let bytes: usize = blocks
            .iter()
            .map(|block| {
                size_of::<Block>()
                    + block.records.capacity() * size_of::<Record>()
                    + block
                        .texts
                        .iter()
                        .map(|text| 32 + text.len())
                        .sum::<usize>()
                    + block.attributes.capacity() * size_of::<Attribute>()
            })
            .sum();
        assert!(bytes <= 60 * store.len(), "{bytes} bytes");
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes for three blocks of spans")]
    fn the_oldest_spans_go_with_their_names_and_are_counted() {
        let mut store = Store::new(BLOCK + 10);
        for number in 0..3 * BLOCK {
            store.add(&told(
                &number.to_string(),
                (number % 2 == 0).then_some("why"),
            ));
        }
        assert_eq!(store.len(), BLOCK + 10);
        assert_eq!(store.dropped as usize, 2 * BLOCK - 10);
        assert_eq!(store.failed, (BLOCK + 10) / 2);
        let left = names(&store);
        assert_eq!(left.len(), BLOCK + 10);
        assert_eq!(left[0], (2 * BLOCK - 10).to_string());
        assert_eq!(left[left.len() - 1], (3 * BLOCK - 1).to_string());
        assert!(store.full.len() <= 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "330 s for two blocks of spans")]
    fn a_capacity_below_a_block_is_kept() {
        let mut store = Store::new(3);
        for number in 0..2 * BLOCK + 5 {
            store.add(&told(&number.to_string(), None));
            assert_eq!(store.len(), 3.min(number + 1));
        }
        let last = 2 * BLOCK + 4;
        assert_eq!(
            names(&store),
            [last - 2, last - 1, last].map(|n| n.to_string())
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes for two blocks of spans")]
    fn records_that_are_added_many_at_once_push_out_as_many() {
        let known = |number| Record::of_thread(0, number, 1, 2);
        for capacity in [3, BLOCK, BLOCK + 10] {
            let mut store = Store::new(capacity);
            store.add(&told("one", Some("why")));
            for number in 0..2 * BLOCK as u32 / 128 {
                store.extend(&[known(number); 128]);
                assert!(store.len() <= capacity);
                assert_eq!(
                    store.len() + store.dropped as usize,
                    1 + 128 * (number as usize + 1)
                );
            }
            assert_eq!((store.len(), store.failed), (capacity, 0));
            let left = names(&store);
            assert_eq!(left.len(), capacity);
            assert_eq!(left[capacity - 1], format!("known {}", 2 * BLOCK / 128 - 1));
        }
    }

    #[test]
    fn attributes_are_found_again() {
        let mut store = Store::new(100);
        let mut attributes = None;
        super::super::value::note(&mut attributes, "bytes", 4096_u32.into());
        super::super::value::note(&mut attributes, "kind", "copy".into());
        let with = Told {
            attributes: attributes.as_ref().unwrap(),
            ..told("load", None)
        };
        for told in [told("one", None), with.clone(), told("two", None), with] {
            store.add(&told);
        }
        let (blocks, _) = store.blocks();
        let block = &blocks[0];
        let counts: Vec<_> = block
            .records
            .iter()
            .map(|record| block.attributes_of(record).count())
            .collect();
        assert_eq!(counts, [0, 2, 0, 2]);
        let (name, value) = block.attributes_of(&block.records[3]).next().unwrap();
        assert_eq!(&*block.texts[name as usize], "bytes");
        assert_eq!(value, picture::Value::Unsigned(4096));
    }
}
