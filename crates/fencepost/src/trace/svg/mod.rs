//! A trace as a picture: rows of slices over time.
//!
//! It is for paper and for pages as well as for a screen: its size is bounded, its colours follow
//! the reader's scheme, and nothing is told by colour alone. A name stands in its slice; where
//! there is no room, a number does, and the legend says what that stands for.

mod bars;
mod scale;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io::{self, Write},
};

use super::{
    lanes::{Lanes, Step},
    names,
    picture::{ArrowEnd, On, Picture, State},
};
use bars::{Bar, Row, Rows, Several, What};
use scale::{Scale, in_words};

const WIDTH: f64 = 960.0;
const SIDE: f64 = 12.0;
/// Room for the names of rows.
const LABELS: f64 = 176.0;
const TOP: f64 = 44.0;
const ROW: f64 = 18.0;
const BAR: f64 = 15.0;
const BETWEEN_TRACKS: f64 = 6.0;
/// Of a letter, at most, in what a bar is labelled with.
const LETTER: f64 = 6.6;

/// More rows and arrows are left out, and the picture says so.
const MOST_ROWS: usize = 48;
const MOST_ARROWS: usize = 200;
/// Names with a colour and a number of their own.
const COLOURS: usize = 8;
/// Letters of a text that a reader shows for what is pointed at.
const MOST_LETTERS: usize = 200;

/// Fills in a light and in a dark scheme, with a contrast to the text of at least 4.5.
const PALETTE: [(&str, &str); COLOURS] = [
    ("#9ec9f5", "#1f4e79"),
    ("#f8c98b", "#7a4a0c"),
    ("#a9dfb4", "#1e5b30"),
    ("#f4b0b8", "#7d2734"),
    ("#cdbcf2", "#4b3684"),
    ("#e3dd86", "#5d5709"),
    ("#96dcd8", "#145754"),
    ("#e9b9dd", "#6e2b5f"),
];

pub(super) fn write(picture: &Picture, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(Drawing::new(picture).svg().as_bytes())
}

struct Drawing<'a> {
    picture: &'a Picture,
    scale: Scale,
    lanes: Lanes,
    rows: Vec<Row>,
    /// The top of each row.
    tops: Vec<f64>,
    /// Rows that are left out.
    hidden: usize,
    /// How deep each slice lies in its lane.
    depths: Vec<u32>,
    /// Slices with a bar of their own.
    alone: HashSet<u32>,
    /// Whether a bar stands for several slices.
    several: bool,
    /// The names with the most time, and what each took.
    legend: Vec<Legend>,
    colours: HashMap<u32, usize>,
    svg: String,
}

/// What is drawn of a bar.
struct Described {
    /// That of all its slices, for the colour.
    name: Option<u32>,
    title: String,
    label: String,
    /// Patterns over the colour.
    signs: [Option<&'static str>; 2],
}

struct Legend {
    name: u32,
    slices: u64,
    time: i64,
}

impl<'a> Drawing<'a> {
    fn new(picture: &'a Picture) -> Self {
        let (from, to) = bounds(picture);
        let scale = Scale {
            from,
            to,
            left: SIDE + LABELS,
            right: WIDTH - SIDE,
        };
        let mut depths = vec![0; picture.slices.len()];
        let mut rows = Rows::new();
        let lanes = Lanes::of(picture, |lane, step| {
            if let Step::Begin(slice, depth) = step {
                depths[slice as usize] = depth as u32;
            }
            rows.step(picture, &scale, lane, step);
        });
        let mut rows = rows.rows;
        let hidden = rows.len().saturating_sub(MOST_ROWS);
        rows.truncate(MOST_ROWS);
        let bars = || rows.iter().flat_map(|row| &row.bars);
        let alone = bars().filter_map(|bar| match bar.what {
            What::Slice(slice) => Some(slice),
            What::Several(_) => None,
        });
        let legend = legend(picture);
        let named = legend
            .iter()
            .enumerate()
            .map(|(at, entry)| (entry.name, at));
        let colours = named.collect();
        Self {
            picture,
            scale,
            lanes,
            tops: tops(&rows),
            alone: alone.collect(),
            several: bars().any(|bar| matches!(bar.what, What::Several(_))),
            rows,
            hidden,
            depths,
            legend,
            colours,
            svg: String::new(),
        }
    }

    /// Where the rows end.
    fn bottom(&self) -> f64 {
        self.tops.last().map_or(TOP, |top| top + ROW)
    }

    fn svg(mut self) -> String {
        let notes = self.notes();
        let lines = self.legend.len().div_ceil(2) + notes.len() + 1;
        let height = self.bottom() + 44.0 + 16.0 * lines as f64;
        let process = escaped(&cut(&self.picture.process.name));
        let _ = write!(
            self.svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" font-family=\"sans-serif\" \
             font-size=\"11\"><title>What ran when in {process}</title>{}\
             <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\
             <text class=\"ink\" x=\"{SIDE}\" y=\"22\" font-size=\"14\">{process}</text>\
             <text class=\"ink\" x=\"{SIDE}\" y=\"37\">{}</text>",
            style(),
            self.summary(),
        );
        self.axis();
        for number in 0..self.rows.len() {
            self.row(number);
        }
        let left_out = self.arrows();
        self.below(notes, left_out);
        self.svg.push_str("</svg>\n");
        self.svg
    }

    fn summary(&self) -> String {
        let spans = self.picture.slices.len();
        let dropped = match self.picture.dropped {
            0 => String::new(),
            1 => ", 1 more is missing".to_owned(),
            dropped => format!(", {dropped} more are missing"),
        };
        let length = in_words(self.scale.length());
        format!("{spans} {} in {length}{dropped}", plural(spans, "span"))
    }

    fn axis(&mut self) {
        let floor = self.bottom() + 4.0;
        let (ticks, unit) = self.scale.ticks();
        for (time, label) in ticks {
            let x = self.scale.x(time);
            let _ = write!(
                self.svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{floor:.1}\"/>\
                 <text class=\"ink\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">\
                 {label}</text>",
                floor + 13.0
            );
        }
        let _ = write!(
            self.svg,
            "<text class=\"ink\" x=\"{SIDE}\" y=\"{:.1}\">time in {unit}</text>",
            floor + 13.0
        );
    }

    fn row(&mut self, number: usize) {
        let bars = std::mem::take(&mut self.rows[number].bars);
        let top = self.tops[number];
        let (lane, depth) = (self.rows[number].lane, self.rows[number].depth);
        if depth == 0 {
            let title = names::title(&self.picture.tracks[lane.track as usize], lane);
            let _ = write!(
                self.svg,
                "<text class=\"ink\" x=\"{SIDE}\" y=\"{:.1}\">{}<title>{}</title></text>",
                top + 11.5,
                escaped(&shortened(&title, LABELS - 8.0)),
                escaped(&cut(&title))
            );
        }
        for bar in &bars {
            self.bar(bar, top);
        }
        let marks = std::mem::take(&mut self.rows[number].marks);
        for (x, mark) in marks {
            let mark = &self.picture.marks[mark as usize];
            let y = top + BAR;
            let _ = write!(
                self.svg,
                "<path class=\"mark\" d=\"M{x:.1} {:.1}l3.5 6h-7z\"><title>{}</title></path>",
                y - 5.0,
                escaped(&self.pointed_at(mark.name, mark.state))
            );
        }
    }

    fn bar(&mut self, bar: &Bar, top: f64) {
        let width = (bar.right - bar.left).max(1.0);
        let place = format!(
            "x=\"{:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{BAR}\"",
            bar.left
        );
        let described = match &bar.what {
            What::Slice(slice) => self.slice(*slice),
            What::Several(several) => self.several(several),
        };
        let number = described
            .name
            .and_then(|name| self.colours.get(&name).copied());
        let class = match (described.name, number) {
            (_, Some(number)) => format!("c{number}"),
            _ => "other".to_owned(),
        };
        let _ = write!(
            self.svg,
            "<rect class=\"{class}\" {place}><title>{}</title></rect>",
            escaped(&described.title)
        );
        for class in described.signs.into_iter().flatten() {
            let _ = write!(self.svg, "<rect class=\"{class}\" {place}/>");
        }
        self.label(&described.label, number, bar.left, width, top);
    }

    fn slice(&self, slice: u32) -> Described {
        let slice = &self.picture.slices[slice as usize];
        let name = names::of(self.picture, slice.name, slice.state);
        let length = in_words(slice.end - slice.start);
        let (sign, why) = match slice.state {
            State::Complete => (None, String::new()),
            State::Unfinished => (Some("unfinished"), String::new()),
            State::Failed(why) => {
                let why = &self.picture.texts[why as usize];
                (Some("failed"), format!(": {}", cut(why)))
            }
        };
        Described {
            name: Some(slice.name),
            title: format!(
                "{}, {length}{why}",
                self.pointed_at(slice.name, slice.state)
            ),
            label: name.into_owned(),
            signs: [sign, None],
        }
    }

    /// The name of a slice or mark, for who points at it.
    fn pointed_at(&self, name: u32, state: State) -> String {
        let name = cut(&self.picture.texts[name as usize]);
        format!("{name}{}", names::suffix(state))
    }

    fn several(&self, several: &Several) -> Described {
        let count = several.slices;
        let what = match several.name {
            Some(name) => format!("{count} × {}", cut(&self.picture.texts[name as usize])),
            None => format!("{count} spans"),
        };
        let label = match several.failed {
            0 => what,
            failed => format!("{what} ({failed} failed)"),
        };
        Described {
            name: several.name,
            title: label.clone(),
            label,
            signs: [Some("several"), (several.failed > 0).then_some("failed")],
        }
    }

    /// The name in a bar, as much as there is room for, or its number in the legend.
    fn label(&mut self, name: &str, number: Option<usize>, left: f64, width: f64, top: f64) {
        let number = number.map(|number| (number + 1).to_string());
        let text = match shortened(name, width - 6.0) {
            // A letter or two tell less than the number.
            short if short.chars().count() < 4 && short != name => match number {
                Some(number) if width >= 9.0 => number,
                _ => return,
            },
            short => short,
        };
        if !text.is_empty() {
            let _ = write!(
                self.svg,
                "<text class=\"ink in\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left + if width < 15.0 { 1.5 } else { 3.0 },
                top + 11.5,
                escaped(&text)
            );
        }
    }

    /// Draws arrows, each place once, and gives how many there was no room for.
    fn arrows(&mut self) -> usize {
        let mut drawn = HashSet::new();
        let mut left_out = 0;
        for arrow in &self.picture.arrows {
            let (Some(from), Some(to)) = (self.place(arrow.from), self.place(arrow.to)) else {
                left_out += 1;
                continue;
            };
            let place = [from.0, from.1, to.0, to.1].map(|at| (at / 2.0) as i64);
            if drawn.contains(&place) {
                continue;
            }
            if drawn.len() == MOST_ARROWS {
                left_out += 1;
                continue;
            }
            drawn.insert(place);
            // A bow, so that an arrow straight down is seen beside the edges of bars.
            let bow = 10.0 + (to.0 - from.0).abs() * 0.2;
            let _ = write!(
                self.svg,
                "<path class=\"arrow\" marker-end=\"url(#head)\" d=\"M{:.1} {:.1}C{:.1} {:.1} \
                 {:.1} {:.1} {:.1} {:.1}\"/>",
                from.0,
                from.1,
                from.0 + bow,
                from.1,
                to.0 - bow,
                to.1,
                to.0,
                to.1
            );
        }
        left_out
    }

    /// Where an end of an arrow is, unless its row is left out or its slice has no bar of its own.
    fn place(&self, end: ArrowEnd) -> Option<(f64, f64)> {
        let (lane, depth) = match end.on {
            On::Slice(slice) if !self.alone.contains(&slice) => return None,
            On::Slice(slice) => (self.lanes.of_slice(slice), self.depths[slice as usize]),
            On::Mark(_) => (self.lanes.of_marks(end.track), 0),
        };
        let lane = self.lanes.lanes[lane];
        let row = self
            .rows
            .iter()
            .position(|row| row.lane == lane && row.depth == depth as usize)?;
        Some((self.scale.x(end.time), self.tops[row] + BAR / 2.0))
    }

    /// What else must be said.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.hidden > 0 {
            notes.push(format!(
                "{} more {} not shown.",
                self.hidden,
                match self.hidden {
                    1 => "row is",
                    _ => "rows are",
                }
            ));
        }
        notes
    }

    /// The legend and the notes.
    fn below(&mut self, mut notes: Vec<String>, left_out: usize) {
        let mut y = self.bottom() + 40.0;
        for (number, entry) in self.legend.iter().enumerate() {
            let x = SIDE + if number % 2 == 0 { 0.0 } else { WIDTH / 2.0 };
            let name = escaped(&shortened(&self.picture.texts[entry.name as usize], 260.0));
            let slices = entry.slices;
            let _ = write!(
                self.svg,
                "<rect class=\"c{number}\" x=\"{x}\" y=\"{:.1}\" width=\"16\" height=\"12\"/>\
                 <text class=\"ink\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>\
                 <text class=\"ink\" x=\"{:.1}\" y=\"{y:.1}\">{name}: {slices} {}, {}</text>",
                y - 10.0,
                x + 5.0,
                number + 1,
                x + 22.0,
                plural(slices as usize, "span"),
                in_words(entry.time)
            );
            if number % 2 == 1 || number + 1 == self.legend.len() {
                y += 16.0;
            }
        }
        y = self.signs(y);
        if left_out > 0 {
            notes.push(format!(
                "{left_out} {} not shown.",
                match left_out {
                    1 => "arrow is",
                    _ => "arrows are",
                }
            ));
        }
        if !notes.is_empty() {
            let notes = notes.join(" ");
            let _ = write!(
                self.svg,
                "<text class=\"ink\" x=\"{SIDE}\" y=\"{y:.1}\">{notes}</text>"
            );
        }
    }

    /// What the signs mean that occur in the picture.
    fn signs(&mut self, y: f64) -> f64 {
        let any = |is: fn(State) -> bool| self.picture.slices.iter().any(|slice| is(slice.state));
        let signs = [
            (
                "failed",
                "failed",
                any(|state| matches!(state, State::Failed(_))),
            ),
            (
                "unfinished",
                "unfinished",
                any(|state| state == State::Unfinished),
            ),
            (
                "several",
                "several spans, each too narrow to be drawn",
                self.several,
            ),
        ];
        let mut x = SIDE;
        for (class, text, _) in signs.iter().filter(|(.., there)| *there) {
            let _ = write!(
                self.svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"16\" height=\"12\"/>\
                 <text class=\"ink\" x=\"{:.1}\" y=\"{y:.1}\">{text}</text>",
                y - 10.0,
                x + 22.0
            );
            x += 40.0 + text.chars().count() as f64 * LETTER;
        }
        if !self.picture.arrows.is_empty() {
            let _ = write!(
                self.svg,
                "<path class=\"arrow\" marker-end=\"url(#head)\" d=\"M{x:.1} {:.1}h16\"/>\
                 <text class=\"ink\" x=\"{:.1}\" y=\"{y:.1}\">wait</text>",
                y - 4.0,
                x + 22.0
            );
        }
        y + 16.0
    }
}

/// From the first moment to the last.
fn bounds(picture: &Picture) -> (i64, i64) {
    let slices = picture
        .slices
        .iter()
        .flat_map(|slice| [slice.start, slice.end]);
    let marks = picture.marks.iter().map(|mark| mark.time);
    let times = slices.chain(marks);
    let from = times.clone().min().unwrap_or_default();
    (from, times.max().unwrap_or(from).max(from))
}

fn tops(rows: &[Row]) -> Vec<f64> {
    let mut y = TOP;
    let mut tops = Vec::with_capacity(rows.len());
    for (number, row) in rows.iter().enumerate() {
        if number > 0 && rows[number - 1].lane.track != row.lane.track {
            y += BETWEEN_TRACKS;
        }
        tops.push(y + 2.0);
        y += ROW;
    }
    tops
}

/// The names of slices, those with the most time first.
fn legend(picture: &Picture) -> Vec<Legend> {
    let mut names: Vec<Legend> = (0..picture.texts.len() as u32)
        .map(|name| Legend {
            name,
            slices: 0,
            time: 0,
        })
        .collect();
    for slice in &picture.slices {
        let entry = &mut names[slice.name as usize];
        entry.slices += 1;
        entry.time = entry.time.saturating_add(slice.end - slice.start);
    }
    names.retain(|entry| entry.slices > 0);
    // Of equal ones the first in the picture.
    names.sort_by_key(|entry| std::cmp::Reverse(entry.time));
    names.truncate(COLOURS);
    names
}

/// The colours, and the patterns that tell states apart without them.
fn style() -> String {
    let rules = |scheme: fn(&(&'static str, &'static str)) -> &'static str, paper, ink, dim| {
        let mut rules = format!(
            ".paper{{fill:{paper}}}.ink{{fill:{ink}}}.mark{{fill:{ink}}}.headed{{fill:{ink}}}\
             .grid{{stroke:{dim};stroke-width:.6}}.other{{fill:{dim}}}\
             .several{{fill:none;stroke:{ink};stroke-width:1.2;stroke-dasharray:1.2 1.8}}\
             .failed{{fill:url(#hatched);stroke:{ink}}}\
             .hatch{{stroke:{ink};stroke-width:1;stroke-opacity:.4}}\
             .unfinished{{fill:none;stroke:{ink};stroke-dasharray:4 2}}\
             .arrow{{fill:none;stroke:{ink};stroke-opacity:.7}}"
        );
        for (number, colours) in PALETTE.iter().enumerate() {
            // An edge, so that bars of one name that touch are seen to be several.
            let fill = scheme(colours);
            let _ = write!(
                rules,
                ".c{number}{{fill:{fill};stroke:{paper};stroke-width:.8}}"
            );
        }
        rules
    };
    format!(
        "<style>{}@media(prefers-color-scheme:dark){{{}}}.in{{pointer-events:none}}</style>\
         <defs><pattern id=\"hatched\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern>\
         <marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" \
         markerHeight=\"7\" orient=\"auto\"><path class=\"headed\" d=\"M0 0L8 4L0 8z\"/></marker>\
         </defs>",
        rules(|colours| colours.0, "#ffffff", "#1f2328", "#d0d7de"),
        rules(|colours| colours.1, "#0d1117", "#e6edf3", "#4a525c")
    )
}

fn plural(count: usize, word: &str) -> String {
    match count {
        1 => word.to_owned(),
        _ => format!("{word}s"),
    }
}

/// The first letters of a text.
fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// As much of `text` as there is room for.
fn shortened(text: &str, room: f64) -> String {
    // Letters beyond Latin, Greek and Cyrillic may be twice as wide.
    let width = |letter: char| LETTER * if letter < '\u{1100}' { 1.0 } else { 2.0 };
    if text.chars().map(width).sum::<f64>() <= room {
        return text.to_owned();
    }
    let mut left = room - LETTER;
    let fits = |letter: &char| {
        left -= width(*letter);
        left >= 0.0
    };
    let short: String = text.chars().take_while(fits).collect();
    match short.is_empty() {
        true => short,
        false => short + "…",
    }
}

/// Text for an element. XML has no control characters, not even as numbers.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\n' | '\t' => escaped.push(' '),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
