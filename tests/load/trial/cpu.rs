//! CPU time of a trial's processes.

use super::Trial;
use crate::figures::float;
use crate::outcome::Cost;
use crate::process::{Cpu, Process};

/// CPU time of all processes so far.
pub(crate) struct CpuSnapshot {
    server: Cpu,
    tool: Cpu,
    /// In nanoseconds, child processes included.
    broker: u64,
    postgres: u64,
}

impl Trial<'_> {
    pub(crate) fn cpu_snapshot(&self) -> CpuSnapshot {
        let family = |process: Option<Process>| process.map_or(0, Process::family_cpu);
        CpuSnapshot {
            server: self.server.process().cpu(),
            tool: Process::this().cpu(),
            broker: family(self.rig.broker_process),
            postgres: family(self.rig.postgres_process),
        }
    }

    /// The cost per event since `before`.
    pub(crate) fn cost_since(&self, before: &CpuSnapshot, count: u64) -> Cost {
        before.cost_until(&self.cpu_snapshot(), count)
    }
}

impl CpuSnapshot {
    pub(super) fn cost_until(&self, after: &Self, count: u64) -> Cost {
        let each = |nanos: u64| float(nanos) / 1_000.0 / float(count.max(1));
        Cost {
            server: each(after.server.since(self.server)),
            // These counters may decrease slightly, because ended children are counted in whole ticks.
            broker: each(after.broker.saturating_sub(self.broker)),
            postgres: each(after.postgres.saturating_sub(self.postgres)),
            tool: each(after.tool.since(self.tool)),
        }
    }
}
