//! What libraries say through the `log` crate, in the same log as the events.
//!
//! A line goes to the log directly and not by way of `tracing`, so that neither can send it back to the other. What a
//! library says while a line is being written on the same thread is lost, and counted.

use ::log::{LevelFilter, Log, Metadata, Record};

use crate::log::{self, Level};

/// Takes what `log` says from now on. Only the first call in a process has an effect.
pub(crate) fn install() {
    // An error means that somebody else listens: a test's harness, say.
    let _ = ::log::set_logger(&Lines);
}

/// What is above this is not even put together by who says it.
pub(crate) fn set_level(level: Level) {
    ::log::set_max_level(match level {
        Level::Off => LevelFilter::Off,
        Level::Error => LevelFilter::Error,
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
        Level::Trace => LevelFilter::Trace,
    });
}

/// Writes a record as a line: the event is `said`, the room the library, and the field `target` where in it.
struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Who does not use the macros may not have asked.
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = if is_intended(record) { ::log::Level::Debug } else { record.level() };
        if level > ::log::max_level() {
            return;
        }
        let room = record.target().split("::").next().unwrap_or_default();
        log::write_line(None, (line_level(level), room, "said"), |line| {
            match record.args().as_str() {
                Some(text) => line.field("text", &text),
                None => line.field("text", &record.args().to_string().as_str()),
            };
            line.field("target", &record.target());
        });
    }

    fn flush(&self) {}
}

/// Whether this is an alarm over what we do with intent: `ring` has the runtime find that files cannot be polled.
fn is_intended(record: &Record<'_>) -> bool {
    const ALARM: &str = "got unexpected error when probing iopoll support";
    record.target() == "glommio::reactor" && record.args().to_string().starts_with(ALARM)
}

const fn line_level(level: ::log::Level) -> Level {
    match level {
        ::log::Level::Error => Level::Error,
        ::log::Level::Warn => Level::Warn,
        ::log::Level::Info => Level::Info,
        ::log::Level::Debug => Level::Debug,
        ::log::Level::Trace => Level::Trace,
    }
}
