//! Draws throughput and latency over time, with marks for the steps.

use std::fmt::Write;

use super::report::{Report, SLICE, Slice};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
/// Top and height of the throughput's panel, and of the latency's.
const RATE: (f64, f64) = (160.0, 110.0);
const LATENCY: (f64, f64) = (306.0, 190.0);
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
    let length = report.timeline.len().max(1) as f64 * SLICE.as_secs_f64();
    let x = |seconds: f64| LEFT + seconds / length * (WIDTH - LEFT - RIGHT);
    let most = report.timeline.iter().map(|slice| slice.rate).fold(1.0, f64::max) * 1.1;
    let rate = |value: f64| RATE.0 + RATE.1 * (1.0 - value / most);
    let (least, top) = (DECADES[0].log10(), DECADES[DECADES.len() - 1].log10());
    let latency = |value: f64| {
        let place = (value.max(DECADES[0]).log10() - least) / (top - least);
        LATENCY.0 + LATENCY.1 * (1.0 - place.min(1.0))
    };
    let mut body = String::new();
    axes(&mut body, &x, length, &rate, most, &latency);
    let line = |of: &dyn Fn(&Slice) -> f64| {
        let points = report.timeline.iter().enumerate();
        points
            .map(|(number, slice)| format!("{:.1},{:.1} ", x((number as f64 + 0.5) * SLICE.as_secs_f64()), of(slice)))
            .collect::<String>()
    };
    let (points, first, last) = (line(&|slice| rate(slice.rate)), x(0.0), x(length));
    let floor = RATE.0 + RATE.1;
    let _ = write!(body, r#"<polygon class="area" points="{first:.1},{floor} {points}{last:.1},{floor}"/>"#);
    let _ = write!(body, r#"<polyline class="worst" points="{}"/>"#, line(&|slice| latency(slice.worst)));
    let _ = write!(body, r#"<polyline class="p50" points="{}"/>"#, line(&|slice| latency(slice.p50)));
    marks(&mut body, report, &x);
    let height = LATENCY.0 + LATENCY.1 + 44.0;
    let pauses: Vec<String> = report.pauses_ms.iter().map(|pause| format!("{pause:.0}")).collect();
    let title = format!(
        "{} requests, {} failed; {} acknowledged writes, {} lost, {} doubled; writes paused {} ms",
        report.requests,
        report.failed,
        report.verdict.acknowledged,
        report.verdict.lost,
        report.verdict.doubled,
        pauses.join(", ")
    );
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="18" class="head">The tables of {} move to a database of their own</text>
<text x="{LEFT}" y="34">{title}</text>{body}</svg>
"##,
        report.owner
    )
}

fn axes(
    body: &mut String,
    x: &dyn Fn(f64) -> f64,
    length: f64,
    rate: &dyn Fn(f64) -> f64,
    most: f64,
    latency: &dyn Fn(f64) -> f64,
) {
    let (left, right) = (x(0.0), x(length));
    let _ = write!(body, r#"<text x="{LEFT}" y="{}" class="head">requests/s</text>"#, RATE.0 - 6.0);
    let legend = "latency in ms, from when a request was due: median (green), longest of each 0.1 s (yellow)";
    let _ = write!(body, r#"<text x="{LEFT}" y="{}" class="head">{legend}</text>"#, LATENCY.0 - 8.0);
    let mut grid = |y: f64, value: f64| {
        let _ = write!(
            body,
            r#"<line class="grid" x1="{left:.1}" x2="{right:.1}" y1="{y:.1}" y2="{y:.1}"/>
<text class="end" x="{:.1}" y="{:.1}">{value}</text>"#,
            left - 6.0,
            y + 4.0
        );
    };
    let step = 10_f64.powf((most / 2.0).log10().floor()).max(1.0);
    let step = [1.0, 2.0, 5.0].into_iter().map(|times| step * times).find(|step| most / step < 5.0).unwrap_or(step * 10.0);
    for number in 0..=(most / step) as usize {
        let value = number as f64 * step;
        grid(rate(value), value);
    }
    for value in DECADES {
        grid(latency(value), value);
    }
    let bottom = LATENCY.0 + LATENCY.1;
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0].into_iter().find(|step| length / step < 16.0).unwrap_or(300.0);
    for number in 0..=(length / step) as usize {
        let seconds = number as f64 * step;
        let _ = write!(
            body,
            r#"<text text-anchor="middle" x="{:.1}" y="{:.1}">{seconds:.0} s</text>"#,
            x(seconds),
            bottom + 18.0
        );
    }
}

/// A line for each step; the name goes where there is room for it.
fn marks(body: &mut String, report: &Report, x: &dyn Fn(f64) -> f64) {
    const ROOM: f64 = 13.0;
    let bottom = LATENCY.0 + LATENCY.1;
    let mut free = 0.0_f64;
    for mark in &report.marks {
        let place = x(mark.at.as_secs_f64());
        let class = if ["cutover", "rollback"].contains(&&*mark.step) { "switch" } else { "mark" };
        let _ = write!(body, r#"<line class="{class}" x1="{place:.1}" x2="{place:.1}" y1="{}" y2="{bottom}"/>"#, RATE.0);
        let label = place.max(free);
        free = label + ROOM;
        let _ = write!(
            body,
            r#"<text transform="translate({:.1} {}) rotate(-50)">{}</text>"#,
            label + 3.0,
            RATE.0 - 20.0,
            mark.step
        );
    }
}
