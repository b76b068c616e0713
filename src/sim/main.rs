//! Lives lives: `sim SEED [COUNT]`; or days: `sim day SEED RECIPIENTS`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use sim::{Figures, Trail, Ways, day, live};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("day") {
        return days();
    }
    let arguments: Option<Vec<u64>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    let (first, count) = match arguments.as_deref() {
        Some([seed]) => (*seed, 1),
        Some([seed, count]) => (*seed, *count),
        Some(_) | None => {
            eprintln!(
                "usage: sim SEED [COUNT] | day SEED RECIPIENTS\n\
                 Lives COUNT lives, each from its seed, the first from SEED; or a day with so many recipients."
            );
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

/// The same day in each of the ways.
fn days() -> ExitCode {
    let arguments: Option<Vec<u64>> = std::env::args().skip(2).map(|text| text.parse().ok()).collect();
    let Some([seed, recipients]) = arguments.as_deref() else {
        eprintln!("usage: sim day SEED RECIPIENTS");
        return ExitCode::from(2);
    };
    for ways in [Ways::Ours, Ways::Sources, Ways::Plain] {
        println!("{}\n", day(*seed, *recipients, ways));
    }
    ExitCode::SUCCESS
}
