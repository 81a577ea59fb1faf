//! Draws the ways as bars.

use std::fmt::Write;

use super::report::Entry;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 130.0;
const BAR: f64 = 22.0;
const ROW: f64 = 34.0;
const HEAD: f64 = 46.0;

/// An SVG: for each job a block of bars with requests per second, and the part that succeeds without users.
pub fn draw(entries: &[Entry]) -> String {
    let most = entries.iter().map(|entry| entry.figures.requests_per_second).fold(1.0, f64::max);
    let mut jobs: Vec<_> = entries.iter().map(|entry| entry.job).collect();
    jobs.sort_by_key(|job| job.name());
    jobs.dedup();
    jobs.reverse();
    let mut body = String::new();
    let mut y = 12.0;
    for job in jobs {
        y += HEAD - 16.0;
        let _ = write!(body, r#"<text x="12" y="{y}" class="head">{}: requests per second</text>"#, job.name());
        y += 16.0;
        for entry in entries.iter().filter(|entry| entry.job == job) {
            let rate = entry.figures.requests_per_second;
            let length = rate / most * (WIDTH - LEFT - 330.0);
            let middle = y + BAR / 2.0 + 5.0;
            let (name, p50, done) = (entry.way.name(), entry.figures.p50_ms, entry.done_without_users * 100.0);
            let _ = write!(
                body,
                r#"<text x="12" y="{middle}">{name}</text>
<rect x="{LEFT}" y="{y}" width="{length:.0}" height="{BAR}" rx="3"/>
<text x="{:.0}" y="{middle}">{rate:.0} · p50 {p50:.1} ms · users stopped: {done:.0} % done</text>
"#,
                LEFT + length + 8.0,
            );
            y += ROW;
        }
    }
    let height = y + 8.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">
<style>text{{fill:#24292f}}rect{{fill:#3b7dd8}}.head{{font-weight:bold}}</style>
<rect width="{WIDTH}" height="{height}" style="fill:#fff"/>{body}</svg>
"##
    )
}
