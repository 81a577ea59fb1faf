//! The pictures of the report, as sizes and places: the page draws them as SVG.

use askama::Template;

use super::shown::{bytes, milliseconds, seconds};
use super::{Report, Step, Switched};
use crate::moving::Side;

/// The width of a picture, which the template repeats.
const WIDTH: f64 = 760.0;
/// Where bars begin, behind their names.
const LEFT: f64 = 210.0;
/// The space behind the longest bar, for its value.
const RIGHT: f64 = 130.0;
/// The height of a bar with the space around it.
const LINE: f64 = 26.0;
/// How many letters of a name have room.
const LETTERS: usize = 30;
/// How many tables are drawn.
const TABLES: usize = 20;

/// A picture of bars.
#[derive(Debug, Default, Template)]
#[template(path = "picture.svg")]
pub struct Picture {
    /// What it shows, for people who cannot see it.
    pub title: String,
    /// Its height.
    pub height: f64,
    /// Its bars, from top to bottom.
    pub bars: Vec<Bar>,
    /// The parts of which the bars are made, if they have parts: class and name.
    pub legend: Vec<(usize, &'static str)>,
}

impl Picture {
    fn legend_x(class: &usize) -> f64 {
        30.0 + 110.0 * *class as f64
    }
}

/// A bar.
#[derive(Debug)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// The upper edge.
    pub y: f64,
    /// Its parts, from left to right.
    pub parts: Vec<Part>,
    /// Where its value stands.
    pub end: f64,
    /// Its value.
    pub value: String,
}

/// A part of a bar.
#[derive(Debug)]
pub struct Part {
    /// The number of its colour.
    pub class: usize,
    /// Its left edge.
    pub x: f64,
    /// Its width.
    pub width: f64,
    /// What it is, when the pointer rests on it.
    pub title: String,
}

/// How long each step took.
pub fn steps(report: &Report) -> Picture {
    let bar = |Step { name, seconds: took, .. }: &Step| (name.clone(), vec![(0, *took, seconds(*took))], seconds(*took));
    draw("How long each step took in the rehearsal", report.steps.iter().map(bar).collect(), Vec::new())
}

/// The bytes of each table, the largest first.
pub fn tables(report: &Report) -> Picture {
    let mut tables: Vec<_> = report.tables.iter().collect();
    tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
    let bars = tables.into_iter().take(TABLES).map(|table| {
        let size = bytes(table.bytes);
        (table.name.to_string(), vec![(1, table.bytes as f64, size.clone())], size)
    });
    draw("The size of each table that moves", bars.collect(), Vec::new())
}

/// What writers waited for at each switch.
pub fn pauses(report: &Report) -> Picture {
    let bars = report.switches.iter().enumerate().map(|(number, Switched { lives, pause, .. })| {
        let direction = if *lives == Side::Target { "to the target" } else { "back to the source" };
        let values = [pause.lock, pause.stream, pause.sequences, pause.way_back, pause.opening, pause.commit];
        let parts = values.iter().zip(PARTS).enumerate();
        let parts = parts.map(|(class, (value, name))| (class, *value, format!("{name}: {}", milliseconds(*value))));
        (format!("{}. {direction}", number + 1), parts.collect(), milliseconds(pause.total))
    });
    let bars: Vec<_> = bars.collect();
    let legend = if bars.is_empty() { Vec::new() } else { PARTS.into_iter().enumerate().collect() };
    draw("How long writers waited at each switch, and for what", bars, legend)
}

/// The parts of a pause.
const PARTS: [&str; 6] = ["lock", "stream", "sequences", "way back", "opening", "commit"];

type Values = (String, Vec<(usize, f64, String)>, String);

fn draw(title: &str, bars: Vec<Values>, legend: Vec<(usize, &'static str)>) -> Picture {
    let total = |bar: &Values| bar.1.iter().map(|(_, value, _)| *value).sum::<f64>();
    let longest = bars.iter().map(total).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;
    let top = if legend.is_empty() { 0.0 } else { LINE };
    let height = top + LINE * bars.len() as f64;
    let bars = bars.into_iter().enumerate().map(|(line, (name, values, value))| {
        let mut x = LEFT;
        let parts = values.into_iter().map(|(class, value, title)| {
            let width = (value * scale).max(0.5);
            x += width;
            Part { class, x: x - width, width, title }
        });
        let parts = parts.collect();
        Bar { name: shorten(&name), y: top + LINE * line as f64, parts, end: x + 6.0, value }
    });
    Picture { title: title.to_owned(), height, bars: bars.collect(), legend }
}

fn shorten(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.to_owned();
    }
    name.chars().take(LETTERS - 1).chain(['…']).collect()
}
