//! Log lines on standard error: JSON as MetalLB's users collect it (`ts`, `level`, `caller`, `msg`), or text.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::flags::{Common, LogLevel};

/// Starts logging for the process; a second call changes nothing.
pub fn init(level: LogLevel, json: bool) {
    let registry = tracing_subscriber::registry().with(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Fails only when logging was started before, which keeps its settings.
    let _ = if json {
        registry.with(lines.event_format(JsonLines)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::stderr().is_terminal()).with_target(false)).try_init()
    };
}

/// [`init`] as the flags say.
pub fn init_from(common: &Common) {
    init(common.log_level, common.log_format.is_json(std::io::stderr().is_terminal()));
}

/// Our own crates at `level`; libraries only from warnings on, unless everything is wanted. The watcher of kube repeats
/// each failure at each retry: `watch` says it once, so it is silent below errors.
fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::All => return Targets::new().with_default(LevelFilter::TRACE),
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::None => return Targets::new().with_default(LevelFilter::OFF),
    };
    Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("patina", ours)
        .with_target("kubectl_patina", ours)
        .with_target("kube_runtime::watcher", LevelFilter::ERROR)
}

/// `{"ts":..,"level":..,"caller":..,"msg":..,<fields>}`. Spans are not written: we log events with fields.
#[derive(Debug)]
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert(
            "ts".into(),
            jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into(),
        );
        line.insert("level".into(), metadata.level().as_str().to_ascii_lowercase().into());
        let file = metadata.file().and_then(|path| path.rsplit('/').next()).unwrap_or(metadata.target());
        line.insert("caller".into(), format!("{file}:{}", metadata.line().unwrap_or(0)).into());
        event.record(&mut Fields(&mut line));
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(level: LogLevel, log: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::registry()
            .with(filter(level))
            .with(tracing_subscriber::fmt::layer().with_writer(buffer.clone()).event_format(JsonLines));
        tracing::subscriber::with_default(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_metallbs_keys_and_our_fields() {
        let lines = logged(LogLevel::Info, || {
            tracing::warn!(service = "default/web", tries = 3, "no \"address\" left");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "no \"address\" left");
        assert_eq!(line["service"], "default/web");
        assert_eq!(line["tries"], 3);
        assert!(line["caller"].as_str().unwrap().starts_with("logs.rs:"));
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_level_shows_itself_and_what_is_worse() {
        let all = || {
            tracing::trace!("t");
            tracing::debug!("d");
            tracing::info!("i");
            tracing::warn!("w");
            tracing::error!("e");
            tracing::info!(target: "hyper", "library");
        };
        for (level, expected) in [
            (LogLevel::All, "t d i w e library"),
            (LogLevel::Debug, "d i w e"),
            (LogLevel::Info, "i w e"),
            (LogLevel::Warn, "w e"),
            (LogLevel::Error, "e"),
            (LogLevel::None, ""),
        ] {
            let seen: Vec<_> =
                logged(level, all).iter().map(|l| l["msg"].as_str().unwrap().to_owned()).collect();
            assert_eq!(seen.join(" "), expected, "{level:?}");
        }
    }
}
