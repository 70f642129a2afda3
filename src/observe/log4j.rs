//! The log: one event per line on standard output, as Kafka's own log4j pattern `[%d] %p %m (%c)%n` shapes it, because
//! people, testcontainers and scripts wait for such lines.
//!
//! ```text
//! [2026-11-21 12:00:00,123] INFO [KafkaServer id=1] started (kafka.server.KafkaServer)
//! ```
//!
//! The time is local, the logger is the event's target, and fields follow the message as `name=value`. A line break
//! inside a value would forge a line; it is written as `\n`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::SharedClock;
use crate::config::loggers::{self, Level, LoggerLevels};

/// What is logged: a level for everything, and levels for loggers by the beginning of their name.
#[derive(Debug, Clone)]
pub struct LogLevels(Targets);

impl LogLevels {
    /// From the environment: `RUST_LOG` (as `info,klamm::log=debug`) if it is set, else `KAFKA_LOG4J_ROOT_LOGLEVEL` and
    /// `KAFKA_LOG4J_LOGGERS` (as `kafka.server=DEBUG,kafka.log=WARN`) of Kafka's images, else INFO.
    ///
    /// # Errors
    /// In one line: what is not a level.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        if let Some(filter) = variable("RUST_LOG").filter(|filter| !filter.is_empty()) {
            return filter.parse().map(Self).map_err(|error| format!("RUST_LOG={filter}: {error}"));
        }
        let of = |name: &'static str, text: &str| {
            level(text).ok_or_else(|| format!("{name}: '{text}' is no level (TRACE, DEBUG, INFO, WARN, ERROR, OFF)"))
        };
        const ROOT: &str = "KAFKA_LOG4J_ROOT_LOGLEVEL";
        let root = variable(ROOT).filter(|text| !text.trim().is_empty()).unwrap_or_else(|| "INFO".into());
        let root = of(ROOT, &root)?;
        let mut targets = Targets::new().with_default(root);
        if root <= LevelFilter::INFO {
            // It warns of every try to reach an ensemble that is gone; our own lines say that it is.
            targets = targets.with_target("zookeeper_client", root.min(LevelFilter::ERROR));
        }
        const LOGGERS: &str = "KAFKA_LOG4J_LOGGERS";
        for pair in variable(LOGGERS).unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
            let (logger, text) =
                pair.split_once('=').ok_or_else(|| format!("{LOGGERS}: '{pair}' is not logger=LEVEL"))?;
            targets = targets.with_target(logger.trim(), of(LOGGERS, text)?);
        }
        Ok(Self(targets))
    }
}

/// A level under log4j's names; several loggers of log4j name an appender after the level, which does not count here.
fn level(text: &str) -> Option<LevelFilter> {
    let name = text.split(',').next().unwrap_or_default().trim().to_ascii_uppercase();
    Some(match name.as_str() {
        "ALL" | "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" => LevelFilter::WARN,
        "ERROR" | "FATAL" => LevelFilter::ERROR,
        "OFF" => LevelFilter::OFF,
        _ => return None,
    })
}

/// Sends all events of this process to standard output from now on; a second call changes nothing.
pub fn start_log(levels: LogLevels, clock: SharedClock) {
    let lines = tracing_subscriber::fmt::layer().event_format(Log4j { clock, zone: TimeZone::system() });
    let (filter, handle) = reload::Layer::new(levels.0.clone());
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let running = RunningLevels { at_start: levels.0, changed: Mutex::default(), filter: Some(handle) };
        // Nobody else started the log, so nobody else filled this.
        let _first = RUNNING.set(Arc::new(running));
    }
}

/// The levels that [`start_log`] began with, and what has changed since. Where it was not called nothing is logged, and
/// they are kept all the same.
pub(crate) fn loggers() -> Arc<dyn LoggerLevels> {
    let silent = || RunningLevels { at_start: Targets::new(), changed: Mutex::default(), filter: None };
    Arc::<RunningLevels>::clone(RUNNING.get_or_init(|| Arc::new(silent()))) as Arc<dyn LoggerLevels>
}

static RUNNING: OnceLock<Arc<RunningLevels>> = OnceLock::new();

/// Levels that change while the process runs.
#[derive(Debug)]
struct RunningLevels {
    at_start: Targets,
    changed: Mutex<BTreeMap<String, LevelFilter>>,
    filter: Option<reload::Handle<Targets, Registry>>,
}

impl RunningLevels {
    fn targets(&self, changed: &BTreeMap<String, LevelFilter>) -> Targets {
        let mut targets = self.at_start.clone();
        for (logger, level) in changed {
            targets = match logger.as_str() {
                loggers::ROOT => targets.with_default(*level),
                logger => targets.with_target(logger, *level),
            };
        }
        targets
    }
}

impl LoggerLevels for RunningLevels {
    fn level(&self, logger: &str) -> Level {
        let targets = self.targets(&self.changed.lock());
        if logger == loggers::ROOT {
            return level_of(targets.default_level().unwrap_or(LevelFilter::OFF));
        }
        let lets_through = |level: &tracing::Level| targets.would_enable(logger, level);
        let all = [tracing::Level::TRACE, tracing::Level::DEBUG, tracing::Level::INFO, tracing::Level::WARN];
        let least = all.into_iter().chain([tracing::Level::ERROR]).find(lets_through);
        level_of(least.map_or(LevelFilter::OFF, LevelFilter::from_level))
    }

    fn set(&self, logger: &str, level: Option<Level>) {
        let mut changed = self.changed.lock();
        match level {
            Some(level) => changed.insert(logger.to_owned(), filter_of(level)),
            None => changed.remove(logger),
        };
        if let Some(filter) = &self.filter
            && let Err(error) = filter.reload(self.targets(&changed))
        {
            // The process ends: the subscriber is gone.
            tracing::debug!(%error, "levels not changed");
        }
    }
}

fn level_of(filter: LevelFilter) -> Level {
    match filter.into_level() {
        None => Level::Off,
        Some(tracing::Level::ERROR) => Level::Error,
        Some(tracing::Level::WARN) => Level::Warn,
        Some(tracing::Level::INFO) => Level::Info,
        Some(tracing::Level::DEBUG) => Level::Debug,
        Some(tracing::Level::TRACE) => Level::Trace,
    }
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// The shape of a line.
struct Log4j {
    clock: SharedClock,
    zone: TimeZone,
}

impl<S, N> FormatEvent<S, N> for Log4j
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        write_time(&mut line, self.clock.now_ms(), &self.zone)?;
        writeln!(line, " {} {}{} ({})", metadata.level(), text.message, text.fields, metadata.target())
    }
}

/// `[2026-11-21 12:00:00,123]`.
fn write_time(line: &mut impl fmt::Write, unix_ms: i64, zone: &TimeZone) -> fmt::Result {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = zone.to_datetime(time);
    write!(
        line,
        "[{:04}-{:02}-{:02} {:02}:{:02}:{:02},{:03}]",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// An event's message, and its other fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let (into, name) = match field.name() {
            "message" => (&mut self.message, None),
            name => (&mut self.fields, Some(name)),
        };
        // Writing into a string does not fail.
        if let Some(name) = name {
            let _ = write!(into, " {name}=");
        }
        let _ = OneLine(into).write_fmt(value);
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// Lets no control character through, whatever a client chose as its name.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() && c != '\t' {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::clock::testing::ManualClock;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is logged at this level filter, in UTC, at 2026-11-21 12:00:00.123.
    fn logged(levels: LogLevels, events: impl FnOnce()) -> String {
        let captured = Captured::default();
        let clock = Arc::new(ManualClock::new(1_795_262_400_123, 1));
        let format = Log4j { clock, zone: TimeZone::UTC };
        let lines = tracing_subscriber::fmt::layer().event_format(format).with_writer(captured.clone());
        with_default(tracing_subscriber::registry().with(levels.0).with(lines), events);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn levels(variables: &'static [(&'static str, &'static str)]) -> Result<LogLevels, String> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        LogLevels::from_environment(|name| Some(find(name)?.1.to_owned()))
    }

    #[test]
    fn a_line_has_the_shape_that_kafkas_users_wait_for() {
        let text = logged(levels(&[]).unwrap(), || {
            tracing::info!(target: "kafka.server.KafkaServer", "[KafkaServer id={}] started", 1);
            tracing::warn!(target: "a.b", topic = "t", partition = 3, "no leader");
            tracing::debug!("not shown");
        });
        assert_eq!(
            text,
            "[2026-11-21 12:00:00,123] INFO [KafkaServer id=1] started (kafka.server.KafkaServer)\n\
             [2026-11-21 12:00:00,123] WARN no leader topic=t partition=3 (a.b)\n"
        );
    }

    /// CVE-2021-44228 and its kind: nothing that is logged is looked up, run or fetched.
    #[test]
    fn a_value_is_logged_as_it_is() {
        let hostile = "${jndi:ldap://127.0.0.1/a} ${env:HOME} %m %n {}";
        let text = logged(levels(&[]).unwrap(), || tracing::info!(target: "t", client = hostile, "seen {hostile}"));
        assert_eq!(text, format!("[2026-11-21 12:00:00,123] INFO seen {hostile} client={hostile} (t)\n"));
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        let text = logged(levels(&[]).unwrap(), || tracing::info!(target: "t", client = "x\n[2026] ERROR", "seen\r"));
        assert_eq!(text, "[2026-11-21 12:00:00,123] INFO seen\\r client=x\\n[2026] ERROR (t)\n");
    }

    #[test]
    fn the_time_is_local() {
        let mut line = String::new();
        write_time(&mut line, 1_795_262_400_123, &TimeZone::fixed(jiff::tz::offset(-5))).unwrap();
        assert_eq!(line, "[2026-11-21 07:00:00,123]");
    }

    #[test]
    fn a_level_that_changes_holds_at_once_and_until_it_is_taken_back() {
        let captured = Captured::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(captured.clone()).without_time();
        let at_start = levels(&[("KAFKA_LOG4J_LOGGERS", "a=WARN")]).unwrap().0;
        let (filter, handle) = reload::Layer::new(at_start.clone());
        let running = RunningLevels { at_start, changed: super::Mutex::default(), filter: Some(handle) };
        with_default(tracing_subscriber::registry().with(filter).with(lines), || {
            let say = |n: i32| tracing::debug!(target: "a::b", n, "said");
            say(1);
            running.set("a::b", Some(Level::Debug));
            say(2);
            running.set("a::b", None);
            say(3);
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("n=2") && text.lines().count() == 1, "{text}");
        assert_eq!(
            [running.level("a::b"), running.level("c"), running.level("root")],
            [Level::Warn, Level::Info, Level::Info]
        );
        running.set("root", Some(Level::Trace));
        assert_eq!(
            [running.level("a"), running.level("c"), running.level("root")],
            [Level::Warn, Level::Trace, Level::Trace]
        );
    }

    #[test]
    fn levels_come_from_kafkas_variables_or_rusts() {
        let kafkas =
            levels(&[("KAFKA_LOG4J_ROOT_LOGLEVEL", "WARN"), ("KAFKA_LOG4J_LOGGERS", "a.b=DEBUG,c=OFF")]).unwrap();
        let text = logged(kafkas, || {
            tracing::debug!(target: "a.b.C", "one");
            tracing::info!(target: "d", "two");
            tracing::error!(target: "c", "three");
            tracing::warn!(target: "d", "four");
        });
        assert!(text.contains("one") && text.contains("four") && text.lines().count() == 2, "{text}");
        let rusts = levels(&[("RUST_LOG", "error"), ("KAFKA_LOG4J_ROOT_LOGLEVEL", "TRACE")]).unwrap();
        assert!(logged(rusts, || tracing::info!("x")).is_empty());
        assert!(levels(&[("KAFKA_LOG4J_ROOT_LOGLEVEL", "loud")]).unwrap_err().contains("'loud' is no level"));
        assert!(levels(&[("KAFKA_LOG4J_LOGGERS", "a")]).is_err());
    }
}
