//! The couplings as an SVG for a browser. Owners stand side by side, each above a line. Every coupling is an arrow between
//! two lines, at its own height, so that no two arrows overlap.

use std::fmt::Write;

use super::finding::{Finding, Report, Severity};
use crate::manifest::{Manifest, Owner};

/// The width of a character in pixels. The font is monospaced, so that the width of a label is known.
const CHARACTER: usize = 7;
/// The space around and between elements.
const GAP: usize = 16;
/// The height of a line of text.
const LINE: usize = 18;
/// The height of an arrow with its label.
const ARROW: usize = 44;
/// The least distance between two owners' lines.
const LANE: usize = 300;
/// The longest label, in characters; a longer one is cut.
const LABEL: usize = 64;

/// An owner's column in the picture.
struct Lane<'a> {
    name: &'a str,
    owner: &'a Owner,
    /// The middle of the column.
    x: usize,
    width: usize,
}

/// The SVG document.
pub fn svg(manifest: &Manifest, report: &Report) -> String {
    let lanes = lanes(manifest);
    let middle = |name: &str| lanes.iter().find(|lane| lane.name == name).map(|lane| lane.x);
    let arrows: Vec<(&Finding, usize, usize)> = report
        .findings
        .iter()
        .flat_map(|finding| finding.to.split(", ").map(move |to| (finding, to)))
        .filter_map(|(finding, to)| Some((finding, middle(&finding.from)?, middle(to)?)))
        .collect();
    let others = || report.findings.iter().filter(|finding| finding.to.split(", ").all(|to| middle(to).is_none()));

    let lines = lanes.iter().map(|lane| lane.owner.tables.len() + lane.owner.views.len()).max().unwrap_or(0);
    let top = 3 * GAP + LINE;
    let boxes_end = top + 2 * LINE + GAP + lines * LINE;
    let arrows_start = boxes_end + GAP;
    let arrows_end = arrows_start + arrows.len() * ARROW + GAP;
    let legend = arrows_end + 2 * GAP;
    let height = legend + 2 * GAP + others().count() * LINE + GAP;
    let longest = report.findings.iter().map(|finding| label(finding).chars().count()).max().unwrap_or(0) * CHARACTER;
    // A label may be wider than its arrow, so there is room for the longest one.
    let lanes_end = lanes.last().map_or(0, |lane| lane.x + lane.width / 2);
    let width = (lanes_end + GAP).max(longest + 4 * GAP).max(880);

    let mut svg = String::new();
    let head = HEAD.replace("{width}", &width.to_string()).replace("{height}", &height.to_string());
    svg.push_str(&head.replace("{marker}", MARKER));
    text(&mut svg, GAP, GAP + LINE, "title", &format!("What couples the owners: {}", report.summary()));
    for lane in &lanes {
        draw_owner(&mut svg, lane, top, arrows_end);
    }
    for (at, (finding, from, to)) in arrows.iter().enumerate() {
        draw_arrow(&mut svg, finding, *from, *to, arrows_start + (at + 1) * ARROW, width);
    }
    let mut x = GAP;
    for (severity, words) in
        [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Tolerated, "tolerated by a borrowing")]
    {
        line(&mut svg, severity, x, x + 40, legend);
        text(&mut svg, x + 48, legend + 4, "label", words);
        x += 48 + words.len() * CHARACTER + 2 * GAP;
    }
    text(&mut svg, x, legend + 4, "quiet", "an arrow goes from an owner to the owner that it depends on");
    for (at, finding) in others().enumerate() {
        text(&mut svg, GAP, legend + 2 * GAP + at * LINE, class(finding.severity), &label(finding));
    }
    svg.push_str("</svg>\n");
    svg
}

fn lanes(manifest: &Manifest) -> Vec<Lane<'_>> {
    let mut lanes: Vec<Lane> = Vec::new();
    for (name, owner) in &manifest.owners {
        let names = owner.tables.iter().chain(&owner.views).map(|relation| relation.to_string().chars().count() + 7);
        let longest = names.chain([name.chars().count() + 2, owner.role.chars().count() + 7]).max().unwrap_or(0);
        let width = longest * CHARACTER + 2 * GAP;
        let x = lanes.last().map_or(GAP + width / 2, |last| last.x + (last.width / 2 + 2 * GAP + width / 2).max(LANE));
        lanes.push(Lane { name, owner, x, width });
    }
    lanes
}

fn draw_owner(svg: &mut String, lane: &Lane, top: usize, bottom: usize) {
    let Lane { name, owner, x, width } = lane;
    let lines = owner.tables.len() + owner.views.len();
    let height = 2 * LINE + GAP + lines * LINE;
    let left = x - width / 2;
    let _ = writeln!(svg, r#"<line class="lane" x1="{x}" y1="{}" x2="{x}" y2="{bottom}"/>"#, top + height);
    let _ = writeln!(svg, r#"<rect class="owner" x="{left}" y="{top}" width="{width}" height="{height}" rx="10"/>"#);
    text(svg, left + GAP, top + LINE + 4, "name", name);
    text(svg, left + GAP, top + 2 * LINE + 2, "quiet", &format!("role {}", owner.role));
    let tables = owner.tables.iter().map(|table| (table, "label", ""));
    let views = owner.views.iter().map(|view| (view, "quiet", " (view)"));
    for (at, (relation, class, suffix)) in tables.chain(views).enumerate() {
        text(svg, left + GAP, top + (at + 3) * LINE + GAP / 2, class, &format!("{relation}{suffix}"));
    }
}

fn draw_arrow(svg: &mut String, finding: &Finding, from: usize, to: usize, y: usize, width: usize) {
    // The arrow ends before the line, so that its head touches it.
    let end = if to > from { to - 2 } else { to + 2 };
    let _ = writeln!(svg, "<g><title>{}</title>", escape(&finding.detail));
    line(svg, finding.severity, from, end, y);
    let label = label(finding);
    let half = label.chars().count() * CHARACTER / 2 + GAP;
    let middle = (from.midpoint(to)).clamp(half, (width - half).max(half));
    let _ = writeln!(
        svg,
        r#"<text class="label halo" text-anchor="middle" x="{middle}" y="{}">{}</text></g>"#,
        y - 9,
        escape(&label),
    );
}

fn line(svg: &mut String, severity: Severity, from: usize, to: usize, y: usize) {
    let class = class(severity);
    let _ = writeln!(
        svg,
        r##"<line class="{class}-line" x1="{from}" y1="{y}" x2="{to}" y2="{y}" marker-end="url(#{class}-head)"/>"##
    );
}

fn text(svg: &mut String, x: usize, y: usize, class: &str, text: &str) {
    let _ = writeln!(svg, r#"<text class="{class}" x="{x}" y="{y}">{}</text>"#, escape(text));
}

fn label(finding: &Finding) -> String {
    let label = format!("{}: {}", finding.kind, finding.object);
    if label.chars().count() <= LABEL { label } else { label.chars().take(LABEL - 1).chain(['…']).collect() }
}

fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Tolerated => "tolerated",
    }
}

/// Text for XML, which allows no control characters, even escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

/// The attributes of an arrow's head.
const MARKER: &str =
    r#"viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto""#;

const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"
    viewBox="0 0 {width} {height}">
<style>
    text { font: 11.5px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2937; }
    .title { font-size: 14px; font-weight: bold; }
    .name { font-size: 14px; font-weight: bold; }
    .quiet { fill: #6b7280; }
    .halo { paint-order: stroke; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round; }
    .owner { fill: #f3f4f6; stroke: #9ca3af; }
    .lane { stroke: #d1d5db; stroke-width: 2; }
    .error { fill: #b91c1c; }
    .warning { fill: #c2410c; }
    .tolerated { fill: #6b7280; }
    .error-line { stroke: #dc2626; stroke-width: 2; }
    .warning-line { stroke: #f97316; stroke-width: 2; }
    .tolerated-line { stroke: #9ca3af; stroke-width: 2; stroke-dasharray: 6 4; }
</style>
<defs>
    <marker id="error-head" {marker}><path d="M0 0 8 4 0 8z" fill="#dc2626"/></marker>
    <marker id="warning-head" {marker}><path d="M0 0 8 4 0 8z" fill="#f97316"/></marker>
    <marker id="tolerated-head" {marker}><path d="M0 0 8 4 0 8z" fill="#9ca3af"/></marker>
</defs>
<rect width="100%" height="100%" fill="#ffffff"/>
"##;
