use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use allocation_counter::AllocationInfo;
use criterion::Criterion;

/// Measures pieces one by one, and keeps what each allocates.
pub(crate) struct Pieces {
    criterion: Criterion,
    allocated: BTreeMap<String, AllocationInfo>,
}

impl Default for Pieces {
    /// Shorter than criterion's own times: nothing here takes as long as a millisecond.
    fn default() -> Self {
        let criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(2))
            .configure_from_args();
        Self { criterion, allocated: BTreeMap::new() }
    }
}

impl Pieces {
    /// One piece. It is run again and again, so it has to leave everything as it was.
    ///
    /// A growing vector takes another allocation here where the product's allocator might enlarge the
    /// one it has: the counting one cannot.
    pub(crate) fn piece<T>(&mut self, name: &str, mut run: impl FnMut() -> T) {
        let Self { criterion, allocated } = self;
        criterion.bench_function(name, |bencher| {
            if !allocated.contains_key(name) {
                // Not the first time, which may fill what is kept from then on.
                black_box(run());
                let info = allocation_counter::measure(|| drop(black_box(run())));
                allocated.insert(name.to_owned(), info);
            }
            // Counting takes longer than some of what is measured.
            allocation_counter::opt_out(|| bencher.iter(&mut run));
        });
    }

    /// Prints what each of them allocates.
    pub(crate) fn tell_allocations(&self) {
        if self.allocated.is_empty() {
            return;
        }
        println!("| piece | allocations | bytes allocated | at once |\n|---|---:|---:|---:|");
        for (name, info) in &self.allocated {
            let AllocationInfo { count_total, bytes_total, bytes_max, .. } = info;
            println!("| {name} | {count_total} | {bytes_total} | {bytes_max} |");
        }
    }
}
