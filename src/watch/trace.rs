//! What `tracing` says, by our rooms and by libraries, in the same log as the events.

use std::{
    fmt::{self, Write as _},
    sync::OnceLock,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
    reload,
};

use crate::log::{self, Level};

/// Takes what `tracing` says from now on. Only the first call in a process has an effect.
pub(crate) fn install(level: Level, rooms: &[(String, Level)]) {
    let (filter, handle) = reload::Layer::new(targets(level, rooms));
    let subscriber = Registry::default().with(Lines.with_filter(filter));
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(handle);
    }
}

pub(crate) fn set_levels(level: Level, rooms: &[(String, Level)]) {
    if let Some(filter) = FILTER.get() {
        // An error means that the subscriber is gone, and nobody listens any more.
        let _ = filter.reload(targets(level, rooms));
    }
}

static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

fn targets(level: Level, rooms: &[(String, Level)]) -> Targets {
    let rooms = rooms.iter().map(|(room, level)| (room.clone(), level_filter(*level)));
    Targets::new().with_default(level_filter(level)).with_targets(rooms)
}

const fn level_filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Writes an event of `tracing` as a line: the event is `said`, its message the field `text`.
#[derive(Debug)]
struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let room = event.metadata().target().split("::").next().unwrap_or_default();
        log::write_line(None, (level(event.metadata()), room, "said"), |line| {
            for (name, value) in &fields.0 {
                line.field(name, &value.as_str());
            }
        });
    }
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((name(field), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.0.push((name(field), text));
    }
}

fn name(field: &Field) -> &'static str {
    if field.name() == "message" { "text" } else { field.name() }
}
