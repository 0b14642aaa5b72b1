use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use allocation_counter::AllocationInfo;
use criterion::Criterion;

/// Runs benchmarks and records the allocations of each.
pub(crate) struct Microbenchmarks {
    criterion: Criterion,
    /// By the benchmark's name.
    allocated: BTreeMap<String, AllocationInfo>,
}

impl Default for Microbenchmarks {
    /// Shorter times than criterion's defaults: each function takes less than a millisecond.
    fn default() -> Self {
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        Self { criterion, allocated: BTreeMap::new() }
    }
}

impl Microbenchmarks {
    /// Benchmarks one function. It runs many times, so each run must do the same work.
    ///
    /// Each growth of a vector counts as a further allocation, because the counting allocator cannot enlarge
    /// a block in place. The product's allocator may do so.
    pub(crate) fn bench<T>(&mut self, name: &str, mut run: impl FnMut() -> T) {
        let Self { criterion, allocated } = self;
        criterion.bench_function(name, |bencher| {
            if !allocated.contains_key(name) {
                // The first run is not measured: it may allocate buffers that later runs use again.
                black_box(run());
                let info = allocation_counter::measure(|| drop(black_box(run())));
                allocated.insert(name.to_owned(), info);
            }
            // Counting takes longer than some of the functions themselves.
            allocation_counter::opt_out(|| bencher.iter(&mut run));
        });
    }

    /// Prints the allocations of each benchmark.
    pub(crate) fn print_allocations(&self) {
        if self.allocated.is_empty() {
            return;
        }
        println!(
            "| benchmark | allocations | bytes allocated | most bytes at once |\n|---|---:|---:|---:|"
        );
        for (name, info) in &self.allocated {
            let AllocationInfo { count_total, bytes_total, bytes_max, .. } = info;
            println!("| {name} | {count_total} | {bytes_total} | {bytes_max} |");
        }
    }
}
