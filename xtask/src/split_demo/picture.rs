//! Draws throughput and latency over time, with marks for the steps.

use super::report::{Mark, Report, SLICE, Slice};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
/// Top and height of the throughput's panel, and of the latency's.
const RATE: (f64, f64) = (160.0, 110.0);
const LATENCY: (f64, f64) = (306.0, 190.0);
/// The bottom of both.
const BOTTOM: f64 = LATENCY.0 + LATENCY.1;
/// The latency's axis, in milliseconds: logarithmic.
const DECADES: [f64; 5] = [0.1, 1.0, 10.0, 100.0, 1000.0];

const STYLE: &str = "
text{fill:#24292f}
.grid{stroke:#d8dee4;stroke-width:1}
.mark{stroke:#57606a;stroke-width:1;stroke-dasharray:3 3}
.switch{stroke:#cf222e;stroke-width:1.5}
.area{fill:#9ec5f4;stroke:#3b7dd8;stroke-width:1}
.p50{fill:none;stroke:#1a7f37;stroke-width:1.5}
.worst{fill:none;stroke:#bf8700;stroke-width:1}
.head{font-weight:bold}
.end{text-anchor:end}
";

/// A complete SVG document.
pub fn draw(report: &Report) -> String {
    let scale = Scale::of(report);
    let line = |y: &dyn Fn(&Slice) -> f64| -> String {
        let middle = |number: usize| scale.x((number as f64 + 0.5) * SLICE.as_secs_f64());
        let points = report.timeline.iter().enumerate();
        points.map(|(number, slice)| format!("{:.1},{:.1} ", middle(number), y(slice))).collect()
    };
    let (first, last, floor) = (scale.x(0.0), scale.x(scale.length), RATE.0 + RATE.1);
    let rate = line(&|slice| scale.rate(slice.rate));
    let (worst, p50) = (line(&|slice| scale.latency(slice.worst)), line(&|slice| scale.latency(slice.p50)));
    let pauses: Vec<String> = report.pauses_ms.iter().map(|pause| format!("{pause:.0}")).collect();
    let Report { requests, failed, verdict, owner, .. } = report;
    let title = format!(
        "{requests} requests, {failed} failed; {} acknowledged writes, {} lost, {} doubled; writes paused {} ms",
        verdict.acknowledged,
        verdict.lost,
        verdict.doubled,
        pauses.join(", ")
    );
    let (axes, marks, height) = (scale.axes(), scale.marks(report), BOTTOM + 44.0);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="18" class="head">The tables of {owner} move to a database of their own</text>
<text x="{LEFT}" y="34">{title}</text>
{axes}<polygon class="area" points="{first:.1},{floor} {rate}{last:.1},{floor}"/>
<polyline class="worst" points="{worst}"/>
<polyline class="p50" points="{p50}"/>
{marks}</svg>
"##
    )
}

/// Turns values into places.
struct Scale {
    /// Of the time axis, in seconds.
    length: f64,
    /// The end of the throughput's axis, in requests per second.
    most: f64,
}

impl Scale {
    fn of(report: &Report) -> Self {
        let most = report.timeline.iter().map(|slice| slice.rate).fold(1.0, f64::max) * 1.1;
        Self { length: report.timeline.len().max(1) as f64 * SLICE.as_secs_f64(), most }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.length * (WIDTH - LEFT - RIGHT)
    }

    fn rate(&self, value: f64) -> f64 {
        RATE.0 + RATE.1 * (1.0 - value / self.most)
    }

    fn latency(&self, value: f64) -> f64 {
        let decades = (value.max(DECADES[0]) / DECADES[0]).log10() / (DECADES.len() - 1) as f64;
        LATENCY.0 + LATENCY.1 * (1.0 - decades.min(1.0))
    }

    fn axes(&self) -> String {
        let mut axes = format!(
            r#"<text x="{LEFT}" y="{}" class="head">requests/s</text>
<text x="{LEFT}" y="{}" class="head">ms since a request was due: median (green), longest of each 0.1 s (yellow)</text>
"#,
            RATE.0 - 6.0,
            LATENCY.0 - 8.0
        );
        let rates = steps(self.most, 5.0).map(|value| (self.rate(value), value));
        for (y, value) in rates.chain(DECADES.map(|value| (self.latency(value), value))) {
            axes += &format!(
                r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>
<text class="end" x="{:.1}" y="{:.1}">{value}</text>
"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        for seconds in steps(self.length, 16.0) {
            let (x, y) = (self.x(seconds), BOTTOM + 18.0);
            axes += &format!(r#"<text text-anchor="middle" x="{x:.1}" y="{y:.1}">{seconds:.0} s</text>"#);
        }
        axes
    }

    /// A line for each step, and for a switch where it was made; the name goes where there is room for it.
    fn marks(&self, report: &Report) -> String {
        const ROOM: f64 = 13.0;
        let (mut marks, mut free) = (String::new(), 0.0_f64);
        for Mark { at, step, switched } in &report.marks {
            let place = self.x(switched.unwrap_or(*at).as_secs_f64());
            let class = if switched.is_some() { "switch" } else { "mark" };
            let label = place.max(free);
            free = label + ROOM;
            marks += &format!(
                r#"<line class="{class}" x1="{place:.1}" x2="{place:.1}" y1="{}" y2="{BOTTOM}"/>
<text transform="translate({:.1} {}) rotate(-50)">{step}</text>
"#,
                RATE.0,
                label + 3.0,
                RATE.0 - 20.0
            );
        }
        marks
    }
}

/// The round values from zero to `end`, fewer than `most` but for the zero.
fn steps(end: f64, most: f64) -> impl Iterator<Item = f64> {
    let power = 10_f64.powf((end / most).log10().floor()).max(1.0);
    let step = [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| end / step < most).unwrap_or(power * 10.0);
    (0..=(end / step) as usize).map(move |number| number as f64 * step)
}
