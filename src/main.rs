//! Arguments → settings → tracing → `Broker::start` → signal → stop → exit code.
//!
//! What goes wrong before the broker runs is one line on standard error. The exit codes are in `--help`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use klamm::broker::{Broker, Fatal};
use klamm::clock::SystemClock;
use klamm::config::{Config, Inputs, Machine};
use klamm::observe::{self, LogLevels};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// RocksDB allocates through it as well. The C library's gives large buffers back to the kernel at once and takes them
/// again with the next one: half of what reading behind the tail cost. This one keeps them for some seconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A broker that speaks Kafka's wire protocol.
///
/// Without arguments it is one node on port 9092 that needs nothing else. Settings have Kafka's names and defaults.
/// Later sources win: defaults, FILE, KAFKA_* variables of the environment, --override.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Arguments {
    /// Settings: a server.properties of Kafka 3.9, or the same names as YAML (.yaml, .yml).
    file: Option<PathBuf>,
    /// One setting; may be repeated, and wins over every other source.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Check the settings, print what was set and from where, and end.
    #[arg(long)]
    check_config: bool,
}

const AFTER_HELP: &str = "\
Environment:
  KAFKA_<SETTING>            a setting: _ stands for '.', __ for '_', ___ for '-'
  KAFKA_CFG_<SETTING>        the same with Bitnami's rule: _ always stands for '.'
  KAFKA_LOG4J_ROOT_LOGLEVEL  what is logged: TRACE, DEBUG, INFO (default), WARN, ERROR, OFF
  KAFKA_LOG4J_LOGGERS        the same per logger: kafka.server=DEBUG,klamm::log=WARN
  RUST_LOG                   instead of these two: info,klamm::log=debug

Exit codes:
  0   stopped in order, by SIGTERM or SIGINT; or --check-config found nothing wrong
  1   did not start; one line on standard error says why
  2   wrong arguments
  70  a part of the broker failed in a way that nothing could be trusted any more
  74  no log directory is left that takes writes, or not the first one, where it holds the cluster's state";

/// A process that ends because of its log directories: `EX_IOERR`.
const EXIT_NO_LOG_DIR: i32 = 74;

/// The logger of Kafka's own lines about settings.
const LOGGER: &str = "kafka.server.KafkaConfig";

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            say(&line);
            ExitCode::FAILURE
        }
    }
}

/// # Errors
/// The line with which a start ends.
fn run(arguments: Arguments) -> Result<(), String> {
    let descriptors = observe::raise_file_descriptors()?;
    let levels = LogLevels::from_environment(|name| std::env::var(name).ok())?;
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let inputs = Inputs { file: arguments.file, environment: environment.collect(), overrides: arguments.overrides };
    let config = Config::load(&inputs, Machine::this()).map_err(|error| error.to_string())?;
    if arguments.check_config {
        for line in config.given_lines() {
            writeln!(std::io::stdout(), "{line}").map_err(|error| format!("standard output takes no line: {error}"))?;
        }
        for line in config.warnings() {
            say(&line);
        }
        return Ok(());
    }
    observe::start_log(levels, Arc::new(SystemClock));
    info!(target: LOGGER, "klamm {} starting, {descriptors} file descriptors", env!("CARGO_PKG_VERSION"));
    for line in config.given_lines() {
        info!(target: LOGGER, "{line}");
    }
    for line in config.warnings() {
        warn!(target: LOGGER, "{line}");
    }
    if let Some(line) = config.note() {
        info!(target: LOGGER, "{line}");
    }
    // One of them may write to a disk that hangs, under `storage`'s writer lock, and the others go on: there are two at
    // least.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start threads: {error}"))?;
    let (ended, is_stopped) = match runtime.block_on(serve(config)) {
        Served::Stopped(ended) => (ended, true),
        Served::NotStarted(ended) => (ended, false),
    };
    if is_stopped {
        // All that lies on disks is closed. A name server that does not answer holds a thread for half a minute.
        runtime.shutdown_timeout(STRAGGLERS);
    }
    ended
}

/// How it went.
enum Served {
    /// Ended by an error, or by a signal during the start.
    NotStarted(Result<(), String>),
    Stopped(Result<(), String>),
}

/// For threads that still wait for something when the broker has stopped.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// Runs the broker until a signal asks it to stop; a second signal while it stops is not waited for.
async fn serve(config: Config) -> Served {
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = match (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(line), _) | (_, Err(line)) => return Served::NotStarted(Err(line)),
    };
    let started = tokio::select! {
        started = Broker::start(config) => started.map_err(|error| error.to_string()),
        () = either(&mut terminate, &mut interrupt) => return Served::NotStarted(Ok(())),
    };
    let broker = match started {
        Ok(broker) => broker,
        Err(line) => return Served::NotStarted(Err(line)),
    };
    observe::start_giving_back();
    let ended = tokio::select! {
        () = either(&mut terminate, &mut interrupt) => Ok(()),
        fatal = broker.fatal() => match fatal {
            Fatal::Identity(line) => Err(line),
            Fatal::LogDirs(line) => halt(&line),
        },
    };
    broker.stop().await;
    Served::Stopped(ended)
}

/// A line for whoever started the process, who may not take it: that must not change how it ends.
fn say(line: &str) {
    writeln!(std::io::stderr(), "klamm: {line}").ok();
}

/// Ends the process where it is, as Kafka does: what lies on a disk that fails cannot be closed in order, and trying
/// may hang.
fn halt(line: &str) -> ! {
    say(line);
    std::process::exit(EXIT_NO_LOG_DIR)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => info!(target: "kafka.server.KafkaServer", "SIGTERM received"),
        _ = interrupt.recv() => info!(target: "kafka.server.KafkaServer", "SIGINT received"),
    }
}
