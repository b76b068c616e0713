//! Lives lives: `sim SEED [COUNT]`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use sim::{Figures, Trail, live};

fn main() -> ExitCode {
    let arguments: Option<Vec<u64>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    let (first, count) = match arguments.as_deref() {
        Some([seed]) => (*seed, 1),
        Some([seed, count]) => (*seed, *count),
        Some(_) | None => {
            eprintln!("usage: sim SEED [COUNT]\nLives COUNT lives, each from its seed, the first from SEED.");
            return ExitCode::from(2);
        }
    };
    let (mut all, mut failed) = (Figures::default(), Vec::new());
    for seed in first..first.saturating_add(count) {
        let trail = Trail::default();
        match catch_unwind(AssertUnwindSafe(|| live(seed, &trail))) {
            Ok(figures) => all += figures,
            Err(_) => {
                println!("the last things that happened:");
                trail
                    .last(if count == 1 { usize::MAX } else { 60 })
                    .iter()
                    .for_each(|line| println!("  {line}"));
                println!("seed {seed} failed, for the reason above: cargo run -p sim -- {seed}\n");
                failed.push(seed);
            }
        }
    }
    println!("{} of {count} lives ended well\n{all}", count - failed.len() as u64);
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}");
    ExitCode::FAILURE
}
