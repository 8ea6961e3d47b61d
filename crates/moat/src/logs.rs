//! Logging to standard error, as text for people or JSON lines for machines.

use std::fmt::Write as _;
use std::io::IsTerminal;

use moat_kms::server_log::{self, LogEvent};
use moat_types::{Clock as _, SystemClock};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Reads `text` or `json`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    /// A level, or directives such as `warn,moat_kms=debug`.
    pub(crate) filter: String,
    /// The form of a line.
    pub(crate) format: LogFormat,
}

/// Whether `filter` is understood; [`start`] takes only what passes here.
pub(crate) fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}

/// Starts logging. A second call changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let followed = tracing_subscriber::registry()
        .with(EnvFilter::new(&config.filter))
        .with(Followers);
    let outcome = match config.format {
        LogFormat::Text => followed.with(lines).try_init(),
        LogFormat::Json => followed.with(lines.json().flatten_event(true)).try_init(),
    };
    // It fails only if a subscriber is there already, as in tests.
    drop(outcome);
}

/// Hands events on to those who follow the key manager's log over a wire.
struct Followers;

impl<S: Subscriber> Layer<S> for Followers {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        server_log::publish(|| {
            let mut text = Sentence::default();
            event.record(&mut text);
            LogEvent {
                time: SystemClock.now(),
                level: *event.metadata().level(),
                target: event.metadata().target().to_owned(),
                message: text.message + &text.fields,
            }
        });
    }
}

/// An event's message, and its fields as `name=value`.
#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_sentence_with_its_fields() {
        struct Catch(std::sync::mpsc::Sender<String>);
        impl<S: Subscriber> Layer<S> for Catch {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut text = Sentence::default();
                event.record(&mut text);
                self.0.send(text.message + &text.fields).unwrap();
            }
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let subscriber = tracing_subscriber::registry().with(Catch(sender));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(bucket = "b", count = 2, "it happened");
        });
        let text = receiver.recv().unwrap();
        assert_eq!(text, "it happened bucket=\"b\" count=2");
    }
}
