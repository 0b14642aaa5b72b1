//! CPU time and memory of processes, from /proc (see proc(5)).

use std::fs;
use std::time::Duration;

use crate::clock::nanos;

/// The unit of CPU time in /proc: 10 ms on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u32);

/// CPU time of a process so far, from two counters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// CPU time of the living threads, in nanoseconds.
    threads: u64,
    /// CPU time of all threads, ended ones included, in nanoseconds; a multiple of [`TICK`].
    ticks: u64,
}

impl Cpu {
    /// Nanoseconds since an earlier value.
    ///
    /// The sum of the threads' counters is exact, but does not contain threads that have ended. If the
    /// counter in ticks is larger by more than its rounding, threads have ended, and the result is that
    /// counter.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        let threads = self.threads.saturating_sub(earlier.threads);
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        if ticks > threads + 3 * nanos(TICK) { ticks } else { threads }
    }
}

impl Process {
    pub(crate) fn this() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn cpu(self) -> Cpu {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).into_iter().flatten();
        let threads = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        let stat = self.stat().unwrap_or_default();
        Cpu { threads: threads.sum(), ticks: stat.own * nanos(TICK) }
    }

    /// CPU time of the process and its children, ended ones included, in nanoseconds.
    pub(crate) fn family_cpu(self) -> u64 {
        let Some(stat) = self.stat() else { return 0 };
        let children: u64 = all()
            .filter_map(|(process, other)| {
                (other.parent == self.0 && process != self).then(|| process.cpu().ticks)
            })
            .sum();
        children + (stat.own + stat.ended_children) * nanos(TICK)
    }

    /// Resident memory in bytes; 0 if the process has ended.
    pub(crate) fn rss(self) -> u64 {
        // The kernel counts `smaps_rollup` page by page. `statm` is inexact, because threads batch their updates.
        self.kib("smaps_rollup", "Rss:") * 1024
    }

    /// The peak of resident memory since the start or since [`reset_peak_rss`](Self::reset_peak_rss), in bytes.
    pub(crate) fn peak_rss(self) -> u64 {
        self.kib("status", "VmHWM:") * 1024
    }

    /// Resets [`peak_rss`](Self::peak_rss). Has no effect without permission.
    pub(crate) fn reset_peak_rss(self) {
        // 5 resets the peak (proc(5)).
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0), "5");
    }

    /// The value in KiB of a line of a file in `/proc/<pid>`.
    fn kib(self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn stat(self) -> Option<Stat> {
        Stat::read(&fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?)
    }

    /// The process that listens on this TCP port; `None` if it is not visible, for example in a container.
    pub(crate) fn listening_on(port: u16) -> Option<Self> {
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
            let table = fs::read_to_string(table).ok()?;
            table.lines().find_map(|line| listener(line, port))
        })?;
        let socket = format!("socket:[{inode}]");
        all().map(|(process, _)| process).find(|process| {
            let open = fs::read_dir(format!("/proc/{}/fd", process.0)).into_iter().flatten();
            open.flatten().any(|open| {
                fs::read_link(open.path()).is_ok_and(|to| to.as_os_str() == socket.as_str())
            })
        })
    }
}

/// The inode of the socket in a line of /proc/net/tcp; `None` if the socket does not listen on this port.
fn listener(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";

    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = u16::from_str_radix(local_port, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
    listens.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
}

/// All processes of this machine.
fn all() -> impl Iterator<Item = (Process, Stat)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let process = Process(entry.file_name().to_str()?.parse().ok()?);
        Some((process, process.stat()?))
    })
}

/// Fields of `/proc/<pid>/stat`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// CPU time of the process in user and kernel mode, in ticks.
    own: u64,
    /// CPU time of its ended children, in ticks.
    ended_children: u64,
}

impl Stat {
    fn read(stat: &str) -> Option<Self> {
        // The second field is a name in parentheses, which may contain any character.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            own: number(14)? + number(15)?,
            ended_children: number(16)? + number(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_parentheses_does_not_shift_the_fields() {
        let stat = "17 (a) b) S 3 17 17 0 -1 4194560 100 0 0 0 7 5 2 1 20 0 1 0 99";
        assert_eq!(Stat::read(stat), Some(Stat { parent: 3, own: 12, ended_children: 3 }));
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let (before, begin) = (Process::this().cpu(), std::time::Instant::now());
        while begin.elapsed() < Duration::from_millis(60) {}
        let used = Duration::from_nanos(Process::this().cpu().since(before));
        assert!(used >= Duration::from_millis(5), "{used:?}");
        assert!(Process::this().rss() > 1 << 20);
    }

    #[test]
    fn reset_peak_rss_restarts_the_peak() {
        const SIZE: usize = 256 << 20;
        drop(std::hint::black_box(vec![1_u8; SIZE]));
        assert!(Process::this().peak_rss() > SIZE as u64);
        Process::this().reset_peak_rss();
        assert!(Process::this().peak_rss() < SIZE as u64);
    }

    #[test]
    fn time_of_ended_threads_is_counted() {
        let before = Cpu { threads: 1_000_000, ticks: 0 };
        let ended = Cpu { threads: 0, ticks: 500_000_000 };
        assert_eq!(ended.since(before), 500_000_000);
        // A difference within the rounding of ticks: no thread has ended.
        let alive = Cpu { threads: 8_000_000, ticks: 20_000_000 };
        assert_eq!(alive.since(before), 7_000_000);
    }

    #[test]
    fn listener_is_found_by_port() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(Process::listening_on(port), Some(Process::this()));
    }
}
