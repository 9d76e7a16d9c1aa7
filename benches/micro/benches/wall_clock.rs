//! The time that each case takes, among 1,000,000 filters or topics: `cargo bench`, or `cargo bench -- match` for some of them.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use micro::{Case, Scale, cases};

fn main() {
    divan::main();
}

#[divan::bench(args = cases(), sample_count = 50, sample_size = 1)]
fn operation(bencher: Bencher<'_, '_>, case: &Case) {
    let operation = RefCell::new(case.prepare(Scale::Large));
    bencher
        .counter(ItemsCount::new(case.times))
        .with_inputs(|| operation.borrow_mut().ready())
        .bench_local_values(|()| operation.borrow_mut().run(case.times));
}
