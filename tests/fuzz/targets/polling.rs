#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| belfry_adapters::fuzzing::polling(bytes));
