//! `splitctl status --watch`: a line for each look, on a terminal one that changes.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::get;
use indicatif::ProgressBar;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::net::TcpListener;

use crate::exit;
use crate::moving::progress::REPORT;
use crate::moving::watching::{Look, Watcher};
use crate::output::{Format, Output, note};
use crate::sizes::show;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);

/// Looks until the move ends. With `--metrics` it goes on, and waits for the next move.
pub async fn run(mut watcher: Watcher, metrics: Option<SocketAddr>, output: &Output) -> Result<u8> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let is_served = metrics.is_some();
    if let Some(address) = metrics {
        serve(address, &recorder).await?;
    }
    let line = match output.format {
        Format::Text => ProgressBar::new_spinner(),
        Format::Json => ProgressBar::hidden(),
    };
    let (mut printed, mut was_open) = (None::<tokio::time::Instant>, false);
    loop {
        let look = watcher.look().await?;
        ::metrics::with_local_recorder(&recorder, || record(&look));
        let has_ended = was_open && !look.open && !is_served;
        if !line.is_hidden() {
            line.set_message(text(&look));
        } else if has_ended || printed.is_none_or(|at| at.elapsed() >= REPORT) {
            printed = Some(tokio::time::Instant::now());
            output.print(&look, || text(&look));
        }
        if has_ended {
            line.finish();
            return Ok(exit::DONE);
        }
        was_open = look.open;
        tokio::time::sleep(LOOK).await;
    }
}

fn text(look: &Look) -> String {
    let Some(lives) = look.lives else { return format!("no move of {} is open", look.owner) };
    let mut parts = vec![match &look.progress {
        Some(point) => point.text(),
        None => format!("the tables of {} live in the {lives}", look.owner),
    }];
    let runs = if look.stream_works { "runs" } else { "does not run" };
    let behind = look.behind_bytes.map(|bytes| format!(", {} behind", show(bytes))).unwrap_or_default();
    parts.push(format!("stream {runs}{behind}, {} failures", look.failures));
    if let (Some(held), Some(limit)) = (look.retained_bytes, look.limit_bytes) {
        parts.push(format!("the slot holds back {} of at most {}", show(held), show(limit)));
    }
    parts.extend(look.activities.iter().cloned());
    parts.extend(look.pending.iter().map(|step| format!("begun: {step}")));
    let warnings = look.warning.iter().chain(&look.stalled).map(|warning| format!("\nwarning: {warning}"));
    parts.join("; ") + &warnings.collect::<String>()
}

/// Answers `/metrics` until the program ends.
async fn serve(address: SocketAddr, recorder: &PrometheusRecorder) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("--metrics: {address} cannot be opened"))?;
    note(format_args!("metrics: http://{}/metrics", listener.local_addr()?));
    let handle = recorder.handle();
    let page = move || std::future::ready(handle.render());
    let router = Router::new().route("/metrics", get(page));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Sets every gauge: what a look does not see is not a number.
fn record(look: &Look) {
    let set = |name: &'static str, value: Option<f64>| {
        metrics::gauge!(name, "owner" => look.owner.clone()).set(value.unwrap_or(f64::NAN));
    };
    let bytes = |bytes: Option<i64>| bytes.map(|bytes| bytes as f64);
    let flag = |flag: bool| Some(f64::from(u8::from(flag)));
    let point = look.progress.as_ref();
    set("splitctl_move_open", flag(look.open));
    set("splitctl_move_copied", flag(look.copied));
    set("splitctl_copy_tables", point.and_then(|point| point.tables).map(|(done, _)| done as f64));
    set("splitctl_copy_tables_expected", point.and_then(|point| point.tables).map(|(_, of)| of as f64));
    set("splitctl_copy_rows", point.map(|point| point.rows as f64));
    set("splitctl_copy_rows_expected", point.map(|point| point.expected_rows as f64));
    set("splitctl_copy_bytes", point.and_then(|point| point.bytes).map(|bytes| bytes as f64));
    set("splitctl_stream_running", flag(look.stream_works));
    set("splitctl_stream_stalled", flag(look.stalled.is_some()));
    set("splitctl_stream_failures", Some(look.failures as f64));
    set("splitctl_stream_behind_bytes", bytes(look.behind_bytes));
    set("splitctl_slot_retained_bytes", bytes(look.retained_bytes));
    set("splitctl_slot_limit_bytes", bytes(look.limit_bytes));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    set("splitctl_looked_timestamp_seconds", Some(now.as_secs_f64()));
}
