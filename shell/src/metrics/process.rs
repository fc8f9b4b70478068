//! What the operating system says of this process: a clock and two small files of `/proc`.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::clock;

/// The usual figures of a process, under the names that Prometheus' own libraries use.
#[derive(Debug)]
pub(crate) struct Process {
    registry: Registry,
    cpu: Counter<f64, AtomicU64>,
    /// The counter can only be added to.
    counted: AtomicU64,
    resident: Gauge,
    open_files: Gauge,
}

impl Process {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("process");
        let (cpu, resident, open_files) = (Counter::default(), Gauge::default(), Gauge::default());
        registry.register_with_unit("cpu", "Processor time", Unit::Seconds, Counter::clone(&cpu));
        registry.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, Gauge::clone(&resident));
        registry.register("open_fds", "Open files and sockets", Gauge::clone(&open_files));
        let start: Gauge = Gauge::default();
        start.set(i64::try_from(clock::unix_secs()).unwrap_or_default());
        registry.register_with_unit("start_time", "When this began to listen, since 1970", Unit::Seconds, start);
        Self { registry, cpu, counted: AtomicU64::new(0), resident, open_files }
    }

    /// As text, without an end.
    pub(crate) fn tell(&self) -> String {
        let now = cpu_time();
        let before = self.counted.swap(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.cpu.inc_by(now.saturating_sub(Duration::from_nanos(before)).as_secs_f64());
        if let Some(bytes) = resident() {
            self.resident.set(bytes);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The reading itself has one open.
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX).saturating_sub(1));
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        text
    }
}

fn cpu_time() -> Duration {
    let spec = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spec.tv_sec.unsigned_abs(), u32::try_from(spec.tv_nsec).unwrap_or(0))
}

fn resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1_024)
}
