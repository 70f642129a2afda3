//! A file system that fails on order: `fault-fs --mount DIR --backing DIR --socket PATH [--names directory|journal] [--seed N]
//! [--trace FILE]`.
//!
//! It is empty at first, and what it holds ends with it: its files lie below the backing directory without names. What a
//! program syncs is durable, and everything else is lost when an order says so ([`control`]); with `--names directory`, which
//! is what POSIX promises, a name is durable once its directory was synced, with `--names journal` once anything was,
//! as on ext4. Needs root: it mounts through the kernel's FUSE.
//!
//! A dying process waits for operations that it began, so a loss of power goes: `freeze` (or a rule that freezes), SIGKILL,
//! `power-off`, wait for the end of the process, `lose`, `power-on`.

mod content;
mod control;
mod faults;
mod filesystem;
mod names;
mod random;
mod state;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;

use fuser::{Config, MountOption};

use crate::filesystem::FaultFs;
use crate::names::Promise;
use crate::state::{Shared, State};

/// Frozen operations hold one each.
const THREADS: usize = 8;

fn run() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut options = HashMap::new();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} has no value", pair[0])) };
        options.insert(name.trim_start_matches("--"), value.as_str());
    }
    let needed = |name: &str| options.get(name).copied().ok_or(format!("--{name} is missing"));
    let (mount, backing, socket) = (needed("mount")?, needed("backing")?, needed("socket")?);
    let promise = match options.get("names").copied().unwrap_or("directory") {
        "directory" => Promise::Directory,
        "journal" => Promise::Journal,
        other => return Err(format!("--names {other}")),
    };
    let seed = options.get("seed").map_or(Ok(0), |seed| seed.parse()).map_err(|_| "--seed: no number".to_owned())?;
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let trace = options.get("trace").map(File::create).transpose().map_err(|error| failed("--trace", error))?;

    let shared = Arc::new(Shared::new(State::new(backing.into(), promise, seed, trace)));
    let listener = UnixListener::bind(socket).map_err(|error| failed(socket, error))?;
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("fault-fs".into()), MountOption::NoAtime];
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(FaultFs::new(shared.clone()), mount, &config)
        .map_err(|error| format!("cannot mount {mount} (FUSE wants root and /dev/fuse): {error}"))?;
    control::serve(&listener, &shared).map_err(|error| failed(socket, error))?;
    session.umount_and_join().map_err(|error| failed("unmount", error))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("fault-fs: {reason}");
            ExitCode::FAILURE
        }
    }
}
