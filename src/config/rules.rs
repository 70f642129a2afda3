//! What follows from several settings together, or from a setting and the machine.
//!
//! Source: Kafka 3.9 `KafkaConfig`, also for the texts of errors; choices of our own say so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ConfigError;
use super::machine::Machine;
use super::reader::Reader;
use crate::types::BrokerId;

/// How much of what was written last stays in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCacheBytes {
    pub max: u64,
    /// So much from the beginning, and the rest little by little.
    pub at_once: u64,
}

/// `None`: it is drawn at the first start.
///
/// # Errors
/// Two names say different things, or it is out of its range.
pub(super) fn broker_id(reader: &Reader<'_>, is_kraft: bool) -> Result<Option<BrokerId>, ConfigError> {
    let (broker, node) = (reader.int("broker.id"), reader.int("node.id"));
    if broker != node {
        return Err(reader.invalid("node.id", "You must set `node.id` to the same value as `broker.id`."));
    }
    let (name, id) = ("broker.id", broker);
    if is_kraft {
        let why = "Missing configuration `node.id` which is required when `process.roles` is defined \
                   (i.e. when running in KRaft mode).";
        return if id < 0 { Err(reader.invalid("process.roles", why)) } else { Ok(Some(BrokerId(id))) };
    }
    if !reader.boolean("broker.id.generation.enable") {
        return match id {
            0.. => Ok(Some(BrokerId(id))),
            _ => Err(reader.invalid(name, "broker.id must be greater than or equal to 0")),
        };
    }
    if id < -1 || id > reader.int("reserved.broker.max.id") {
        let why = "broker.id must be greater than or equal to -1 and not greater than reserved.broker.max.id";
        return Err(reader.invalid(name, why));
    }
    Ok((id >= 0).then_some(BrokerId(id)))
}

/// # Errors
/// There is none.
pub(super) fn log_dirs(reader: &Reader<'_>) -> Result<Vec<PathBuf>, ConfigError> {
    let (single, several) = (reader.text("log.dir"), reader.text("log.dirs"));
    let name = if several.is_some() { "log.dirs" } else { "log.dir" };
    let text = several.or(single).unwrap_or_default();
    let dirs: Vec<_> = text.split(',').map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
    if dirs.is_empty() {
        return Err(reader.invalid(name, "At least one log directory must be defined via log.dirs or log.dir."));
    }
    Ok(dirs)
}

/// # Errors
/// It is no number of replicas.
pub(super) fn replication_factor(reader: &Reader<'_>) -> Result<i16, ConfigError> {
    const NAME: &str = "default.replication.factor";
    i16::try_from(reader.long(NAME)).map_err(|_| reader.invalid(NAME, "Value must be no more than 32767"))
}

/// As many as the limit on open files leaves room for.
pub(super) fn max_connections(reader: &Reader<'_>, machine: &Machine) -> usize {
    reader.size("max.connections").min(descriptors(machine, 70))
}

/// So many hundredths of the descriptors that the process may have.
pub(super) fn descriptors(machine: &Machine, hundredths: u128) -> usize {
    usize::try_from(u128::from(machine.file_descriptors) * hundredths / 100).unwrap_or(usize::MAX)
}

/// Bytes of requests that wait. A choice of our own where none is set: Kafka has no bound then.
pub(super) fn queued_max_request_bytes(reader: &Reader<'_>, machine: &Machine) -> u64 {
    let asked = u64::try_from(reader.long("queued.max.request.bytes")).unwrap_or(0);
    if asked > 0 {
        return asked;
    }
    let largest_request = u64::from(reader.count("socket.request.max.bytes").unwrap_or_default());
    (machine.memory_bytes / 4).min(512 << 20).max(largest_request)
}

/// Bytes of replies that wait to be sent.
pub(super) fn reply_bytes(reader: &Reader<'_>, machine: &Machine) -> u64 {
    u64::try_from(reader.long("klamm.reply.bytes")).unwrap_or((machine.memory_bytes / 8).min(256 << 20))
}

/// `None`: the kernel decides.
pub(super) fn page_cache(reader: &Reader<'_>, machine: &Machine) -> Option<PageCacheBytes> {
    let all_at_once = |max| PageCacheBytes { max, at_once: max };
    let set = u64::try_from(reader.long("klamm.page.cache.bytes")).ok();
    let by_machine = || match (machine.reports_free_pages, machine.memory_is_limited) {
        (true, _) => {
            let max = machine.memory_bytes / 8;
            Some(PageCacheBytes { max, at_once: max.min(1 << 30) })
        }
        (false, true) => Some(all_at_once(machine.memory_bytes / 2)),
        (false, false) => None,
    };
    set.map(all_at_once).or_else(by_machine)
}

/// Whether RocksDB's own files, which that bound does not count, stay out of the page cache: where a new page costs
/// several times what is copied into it, and nobody has said that some may be taken.
pub(super) fn files_bypass_page_cache(reader: &Reader<'_>, machine: &Machine) -> bool {
    machine.reports_free_pages && reader.long("klamm.page.cache.bytes") <= 0
}

/// # Errors
/// An element is no pair.
pub(super) fn per_ip_overrides(reader: &Reader<'_>) -> Result<BTreeMap<String, i32>, ConfigError> {
    const NAME: &str = "max.connections.per.ip.overrides";
    let text = reader.text(NAME).unwrap_or_default();
    let pair = |pair: &str| {
        let (host, count) = pair.rsplit_once(':')?;
        Some((host.trim().to_owned(), count.trim().parse().ok()?))
    };
    let pairs = text.split(',').map(str::trim).filter(|element| !element.is_empty());
    let why = "each element is written as host:count";
    pairs.map(|element| pair(element).ok_or_else(|| reader.invalid(NAME, why))).collect()
}

/// Rules over several settings. Source: `KafkaConfig.validateValues`.
///
/// # Errors
/// The first that is broken.
pub(super) fn cross_checks(reader: &Reader<'_>) -> Result<(), ConfigError> {
    let refuse = |name: &str, why: &str| Err(reader.invalid(name, why));
    if reader.optional("log.roll.ms").is_some_and(|ms| ms < 1) {
        return refuse("log.roll.ms", "log.roll.ms must be greater than or equal to 1");
    }
    for name in ["log.retention.ms", "log.retention.minutes", "log.retention.hours"] {
        if let Some(time) = reader.optional(name) {
            if time == 0 {
                return refuse(name, "log.retention.ms must be unlimited (-1) or, greater than or equal to 1");
            }
            break;
        }
    }
    let queued = reader.long("queued.max.request.bytes");
    if queued > 0 && queued < reader.long("socket.request.max.bytes") {
        let why = "queued.max.request.bytes must be larger or equal to socket.request.max.bytes";
        return refuse("queued.max.request.bytes", why);
    }
    if reader.int("max.connections.per.ip") == 0
        && reader.text("max.connections.per.ip.overrides").is_none_or(|t| t.is_empty())
    {
        let why = "max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.";
        return refuse("max.connections.per.ip", why);
    }
    Ok(())
}
