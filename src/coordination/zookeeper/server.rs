//! A real ZooKeeper server for tests, from the Debian package `zookeeper`.
//!
//! Listens on a free loopback port, keeps its data in a temporary directory, and ends with its handle or with the test
//! process, whichever is first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// Ends the JVM when the test's end of the pipe closes, however that comes about.
const GUARD: &str = r#"java "$@" & p=$!; echo $p; cat >/dev/null; kill -9 $p; wait $p"#;

/// Longest start that is not a failure.
const START_MAX: Duration = Duration::from_secs(60);

/// One server, alone or of an ensemble.
#[derive(Debug)]
pub(crate) struct ZookeeperServer {
    dir: TempDir,
    port: u16,
    /// Lines of the configuration that name the ensemble; empty for a server alone.
    peers: String,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    jvm: Pid,
}

impl ZookeeperServer {
    /// One server. `None` if the package is not installed, which is said on standard error; `make test` installs it.
    pub(crate) fn start() -> Option<ZookeeperServer> {
        Self::start_ensemble(1)?.pop()
    }

    /// Several servers that agree. `None` as for [`Self::start`].
    pub(crate) fn start_ensemble(count: usize) -> Option<Vec<ZookeeperServer>> {
        if !Path::new(JAR).exists() {
            eprintln!("SKIPPED: {JAR} is missing; install the package `zookeeper` (make test does)");
            return None;
        }
        for _ in 0..5 {
            let mut servers = Self::prepare(count);
            servers.iter_mut().for_each(Self::spawn);
            if servers.iter_mut().all(Self::comes_up) {
                return Some(servers);
            }
            // Someone else took one of the ports meanwhile.
            servers.iter().for_each(|server| eprintln!("ZooKeeper did not come up: {}", server.log()));
        }
        panic!("no ZooKeeper server came up");
    }

    fn prepare(count: usize) -> Vec<ZookeeperServer> {
        let ports = free_ports(3 * count);
        let mut peers = String::new();
        if count > 1 {
            peers.push_str("initLimit=20\nsyncLimit=10\n");
            for (id, ports) in ports.chunks(3).enumerate() {
                peers.push_str(&format!("server.{}=127.0.0.1:{}:{}\n", id + 1, ports[1], ports[2]));
            }
        }
        let server = |(id, ports): (usize, &[u16])| {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let data = dir.path().join("data");
            std::fs::create_dir(&data).expect("created");
            std::fs::write(data.join("myid"), format!("{}\n", id + 1)).expect("written");
            ZookeeperServer { dir, port: ports[0], peers: peers.clone(), running: None }
        };
        ports.chunks(3).enumerate().map(server).collect()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills the server as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Closes the pipe that the guard reads.
            drop(running.guard.stdin.take());
            running.guard.wait().expect("the guard ends");
        }
    }

    /// Starts it again after [`Self::kill`], with the same port and data.
    pub(crate) fn restart(&mut self) {
        self.spawn();
        assert!(self.comes_up(), "the server does not come back: {}", self.log());
    }

    /// This one decides for the ensemble.
    pub(crate) fn leads(&self) -> bool {
        self.mode().is_ok_and(|answer| answer.contains("Mode: leader"))
    }

    /// Stops the process where it is, as a long pause does.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("the server runs");
        kill_process(running.jvm, signal).expect("the server is our child's child");
    }

    fn spawn(&mut self) {
        let dir = self.dir.path();
        let config = format!(
            "tickTime=500\ndataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nmaxClientCnxns=0\nminSessionTimeout=1000\nmaxSessionTimeout=60000\n{peers}",
            data = dir.join("data").display(),
            port = self.port,
            peers = self.peers,
        );
        std::fs::write(dir.join("zoo.cfg"), config).expect("written");
        let log = std::fs::File::create(dir.join("log")).expect("created");
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dzookeeper.forceSync=no", "-cp", JAR, "org.apache.zookeeper.server.quorum.QuorumPeerMain"])
            .arg(dir.join("zoo.cfg"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let stdout = guard.stdout.take().expect("piped above");
        BufReader::new(stdout).read_line(&mut line).expect("the guard says the JVM's id");
        let jvm = line.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        self.running = Some(Running { guard, jvm });
    }

    /// Waits until the process serves; `false` if it ended instead.
    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + START_MAX;
        let jvm = self.running.as_ref().expect("spawned before").jvm;
        while Instant::now() < deadline && rustix::process::test_kill_process(jvm).is_ok() {
            if self.mode().is_ok_and(|answer| answer.contains("Mode:")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// What the four-letter command `srvr` answers; it names a mode once the server serves.
    fn mode(&self) -> std::io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"srvr")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for ZookeeperServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let listeners: Vec<_> = (0..count).map(bind).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}
