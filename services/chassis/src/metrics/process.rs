//! What Prometheus' own clients say of every process, under the same names, and which build runs. They are read when they
//! are asked for.

use std::fmt::Write;

/// A metric that is read when it is asked for.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: f64,
}

/// Appends them in Prometheus' text format.
pub(super) fn render(text: &mut String) {
    for Metric { name, kind, help, value } in read().unwrap_or_default() {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    let (version, revision) = (env!("CARGO_PKG_VERSION"), option_env!("BUILD_REVISION").unwrap_or_default());
    let name = "build_info";
    let _ = writeln!(text, "# HELP {name} The version that runs, and the revision of its sources.\n# TYPE {name} gauge");
    let _ = writeln!(text, "{name}{{version=\"{version}\",revision=\"{revision}\"}} 1");
}

#[cfg(target_os = "linux")]
fn read() -> Option<Vec<Metric>> {
    use procfs::process::{LimitValue, Process};

    let process = Process::myself().ok()?;
    let (stat, limits) = (process.stat().ok()?, process.limits().ok()?);
    let ticks = procfs::ticks_per_second() as f64;
    let most = |limit| match limit {
        LimitValue::Unlimited => f64::INFINITY,
        LimitValue::Value(value) => value as f64,
    };
    let started = procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks;
    let resident = (stat.rss * procfs::page_size()) as f64;
    let gauge = |name, help, value| Metric { name, kind: "gauge", help, value };
    Some(vec![
        Metric {
            name: "process_cpu_seconds_total",
            kind: "counter",
            help: "Processor time that the process has used.",
            value: (stat.utime + stat.stime) as f64 / ticks,
        },
        gauge("process_resident_memory_bytes", "Memory that the process holds.", resident),
        gauge("process_virtual_memory_bytes", "Addresses that the process has reserved.", stat.vsize as f64),
        gauge("process_open_fds", "Open files and connections.", process.fd_count().ok()? as f64),
        gauge("process_max_fds", "The most files and connections.", most(limits.max_open_files.soft_limit)),
        gauge("process_threads", "Threads of the operating system.", stat.num_threads as f64),
        gauge("process_start_time_seconds", "When the process began, since 1970.", started),
    ])
}

/// Other systems have no such files.
#[cfg(not(target_os = "linux"))]
fn read() -> Option<Vec<Metric>> {
    None
}
