//! Orders over a socket: one line each, `word key=value …`, answered by one line that begins with `ok` or `error`.
//!
//! | order | |
//! |---|---|
//! | `rule op= path= do= [after=] [count=]` | `do`: `eio`, `enospc`, `sleep:MS`, `short`, `flip`, `lie`, `freeze`; answers its number |
//! | `clear` | removes all rules |
//! | `freeze` | this and every later operation waits |
//! | `power-off` | operations fail, those that wait too; SIGKILL goes before it |
//! | `lose keep=nothing/prefix/some seed=` | undoes what was not synced; the process must be gone |
//! | `power-on` | |
//! | `limit bytes=` | the size of the disk; 0 is without limit |
//! | `flip path= [seed=] [offset=]` | flips a bit on the medium, of a file that matches |
//! | `zero path= [seed=]` | a sector of such a file becomes zeros |
//! | `files [path=]` | each as `path:length:durable length` |
//! | `status` | power, operations, bytes used and unsynced, and the hits of each rule |
//! | `quit` | unmounts |

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use crate::content::SECTOR_BYTES;
use crate::faults::{Effect, Operation, Rule};
use crate::random::Random;
use crate::state::{Power, Shared, State};

/// Serves until one orders to quit.
pub fn serve(listener: &UnixListener, shared: &Arc<Shared>) -> std::io::Result<()> {
    for stream in listener.incoming() {
        if take_orders(&stream?, shared)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether one was to quit.
fn take_orders(stream: &UnixStream, shared: &Shared) -> std::io::Result<bool> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut writer = stream;
        if line.trim() == "quit" {
            shared.set_power(Power::Off);
            shared.lock().flush_trace();
            writeln!(writer, "ok")?;
            return Ok(true);
        }
        match obey(&line, shared) {
            Ok(answer) => writeln!(writer, "ok {answer}")?,
            Err(reason) => writeln!(writer, "error {reason}")?,
        }
    }
    Ok(false)
}

struct Words<'a>(HashMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn text(&self, key: &str, default: &'a str) -> &'a str {
        self.0.get(key).copied().unwrap_or(default)
    }

    fn number(&self, key: &str, default: u64) -> Result<u64, String> {
        self.0.get(key).map_or(Ok(default), |text| text.parse().map_err(|_| format!("{key}={text} is no number")))
    }
}

fn obey(line: &str, shared: &Shared) -> Result<String, String> {
    let mut parts = line.split_whitespace();
    let order = parts.next().unwrap_or_default();
    let words =
        Words(parts.map(|part| part.split_once('=').ok_or(format!("{part}: no value"))).collect::<Result<_, _>>()?);
    match order {
        "freeze" => shared.set_power(Power::Frozen),
        "power-off" => shared.set_power(Power::Off),
        "power-on" => shared.set_power(Power::On),
        "rule" => return add_rule(&words, &mut shared.lock()),
        "clear" => shared.lock().rules.clear(),
        "limit" => {
            let bytes = words.number("bytes", 0)?;
            shared.lock().bytes_max = if bytes == 0 { u64::MAX } else { bytes };
        }
        "lose" => {
            let mut state = shared.lock();
            if state.power != Power::Off {
                return Err("the power is on".into());
            }
            let keep = words.text("keep", "nothing");
            if !["nothing", "prefix", "some"].contains(&keep) {
                return Err(format!("keep={keep}"));
            }
            let loss = state.lose_power(keep, words.number("seed", 0)?).map_err(|error| error.to_string())?;
            return Ok(format!("files={} bytes={} operations={}", loss.files, loss.bytes, loss.operations));
        }
        "flip" | "zero" => return damage(order == "flip", &words, &mut shared.lock()),
        "files" => return Ok(files(words.text("path", "*"), &mut shared.lock())),
        "status" => return Ok(status(&mut shared.lock())),
        _ => return Err(format!("no such order: {order}")),
    }
    Ok(String::new())
}

fn add_rule(words: &Words<'_>, state: &mut State) -> Result<String, String> {
    let effect = match words.text("do", "eio").split_once(':').unwrap_or((words.text("do", "eio"), "")) {
        ("eio", _) => Effect::Fail,
        ("enospc", _) => Effect::Full,
        ("short", _) => Effect::Short,
        ("flip", _) => Effect::Flip,
        ("lie", _) => Effect::Lie,
        ("freeze", _) => Effect::Freeze,
        ("sleep", ms) => Effect::SleepMs(ms.parse().map_err(|_| format!("{ms}: no number of ms"))?),
        (other, _) => return Err(format!("do={other}")),
    };
    let operation = words.text("op", "any").to_owned();
    if !Operation::is_word(&operation) {
        return Err(format!("op={operation}"));
    }
    let number = state.next_rule;
    state.next_rule += 1;
    let path = words.text("path", "*").to_owned();
    let (after, count) = (words.number("after", 0)?, words.number("count", u64::MAX)?);
    state.rules.push(Rule { number, operation, path, effect, after, count, hits: 0 });
    Ok(number.to_string())
}

/// Of several files each byte is as likely.
fn damage(flip: bool, words: &Words<'_>, state: &mut State) -> Result<String, String> {
    let mut random = Random::new(words.number("seed", 0)?);
    let files = state.files(words.text("path", "*"));
    let mut lengths = Vec::new();
    for (path, node) in files {
        lengths.push((state.content(node).map_or(0, |content| content.length()), path, node));
    }
    let total: u64 = lengths.iter().map(|(length, ..)| length).sum();
    if total == 0 {
        return Err("no byte of such a file".into());
    }
    let mut at = random.below(total);
    let (length, path, node) = lengths
        .into_iter()
        .find(|(length, ..)| {
            at < *length || {
                at -= *length;
                false
            }
        })
        .expect("it lies in one of them");
    at = words.number("offset", at)?;
    if at >= length {
        return Err(format!("{path} has {length} bytes"));
    }
    let content = state.content(node).map_err(|error| format!("{error:?}"))?;
    let failed = |error: std::io::Error| error.to_string();
    if flip {
        let byte = content.read(at, 1).map_err(failed)?[0];
        content.damage(at, &[byte ^ (1 << random.below(8))]).map_err(failed)?;
    } else {
        at -= at % SECTOR_BYTES as u64;
        let bytes = (length - at).min(SECTOR_BYTES as u64) as usize;
        content.damage(at, &vec![0; bytes]).map_err(failed)?;
    }
    Ok(format!("path={path} offset={at} length={length}"))
}

fn files(pattern: &str, state: &mut State) -> String {
    let mut found = Vec::new();
    for (path, node) in state.files(pattern) {
        let lengths = state.content(node).map(|content| (content.length(), content.durable_length()));
        let (length, durable) = lengths.unwrap_or_default();
        found.push(format!("{path}:{length}:{durable}"));
    }
    found.join(" ")
}

fn status(state: &mut State) -> String {
    state.flush_trace();
    let contents = state.inodes.values().filter_map(|inode| inode.content.as_ref());
    let unsynced: u64 = contents.map(crate::content::Content::unsynced_bytes).sum();
    let hits: String = state.rules.iter().map(|rule| format!(" rule{}={}", rule.number, rule.hits)).collect();
    let power = format!("{:?}", state.power).to_lowercase();
    format!("power={power} operations={} used={} unsynced={unsynced}{hits}", state.number, state.used_bytes())
}
