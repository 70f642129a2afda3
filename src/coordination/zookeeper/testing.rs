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
/// The same with what its manifest forgets and TLS needs.
const CLASS_PATH: &str =
    "/usr/share/java/zookeeper.jar:/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar";

/// Ends the JVM when the test's end of the pipe closes, however that comes about.
const GUARD: &str = r#"java "$@" & p=$!; echo $p; cat >/dev/null; kill -9 $p; wait $p"#;

/// Longest start that is not a failure.
const START_MAX: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub(crate) struct ZookeeperServer {
    dir: TempDir,
    port: u16,
    /// What the JVM is told besides.
    options: Vec<String>,
    /// Lines of its configuration besides.
    lines: String,
    /// 0: it does not speak TLS.
    secure_port: u16,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    jvm: Pid,
}

impl ZookeeperServer {
    /// `None` if the package is not installed, which is said on standard error; `make test` installs it.
    pub(crate) fn start() -> Option<ZookeeperServer> {
        if !Path::new(JAR).exists() {
            eprintln!("SKIPPED: {JAR} is missing; install the package `zookeeper` (make test does)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        Some(Self::start_in(dir, Vec::new(), None))
    }

    /// The same with a second port for TLS: it shows this certificate (PEM with its key), and asks for one that this
    /// authority signed, whose name is then who a client is.
    pub(crate) fn start_over_tls(identity: &str, trusted: &str) -> Option<ZookeeperServer> {
        if !Path::new(JAR).exists() {
            eprintln!("SKIPPED: {JAR} is missing; install the package `zookeeper` (make test does)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in [("key.pem", identity), ("trust.pem", trusted)] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let lines = format!(
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\nsecureClientPortAddress=127.0.0.1\n\
             authProvider.1=org.apache.zookeeper.server.auth.X509AuthenticationProvider\nssl.clientAuth=need\n\
             ssl.keyStore.location={dir}/key.pem\nssl.trustStore.location={dir}/trust.pem\n",
            dir = dir.path().display()
        );
        Some(Self::start_in(dir, Vec::new(), Some(lines)))
    }

    /// The same, where these users prove who they are by SASL DIGEST-MD5: name and password each.
    pub(crate) fn start_with_users(users: &[(&str, &str)]) -> Option<ZookeeperServer> {
        if !Path::new(JAR).exists() {
            eprintln!("SKIPPED: {JAR} is missing; install the package `zookeeper` (make test does)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let users: Vec<String> = users.iter().map(|(name, password)| format!("user_{name}=\"{password}\"")).collect();
        let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
        let jaas = dir.path().join("jaas.conf");
        std::fs::write(&jaas, format!("Server {{ {module} required {}; }};", users.join(" "))).expect("written");
        let provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider";
        let options = vec![
            format!("-Djava.security.auth.login.config={}", jaas.display()),
            format!("-Dzookeeper.authProvider.1={provider}"),
        ];
        Some(Self::start_in(dir, options, None))
    }

    fn start_in(dir: TempDir, options: Vec<String>, over_tls: Option<String>) -> ZookeeperServer {
        let speaks_tls = over_tls.is_some();
        let lines = over_tls.unwrap_or_default();
        let mut server = ZookeeperServer { dir, port: 0, options, lines, secure_port: 0, running: None };
        for _ in 0..5 {
            server.port = free_port();
            if speaks_tls {
                server.secure_port = free_port();
            }
            if server.run() {
                return server;
            }
        }
        panic!("no ZooKeeper server came up: {}", server.log());
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same of its port for TLS.
    pub(crate) fn secure_address(&self) -> String {
        assert!(self.secure_port > 0, "it speaks none");
        format!("127.0.0.1:{}", self.secure_port)
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
        assert!(self.run(), "the server does not come back: {}", self.log());
    }

    /// Loses all data, sessions included, after [`Self::kill`].
    pub(crate) fn forget(&self) {
        std::fs::remove_dir_all(self.dir.path().join("data")).expect("it had data");
    }

    /// Stops the process where it is, as a long pause does.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        // Its threads stop one by one, and one that still runs may answer.
        let jvm = self.running.as_ref().expect("the server runs").jvm.as_raw_nonzero();
        let stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        let all = || std::fs::read_dir(format!("/proc/{jvm}/task")).expect("it lives").flatten().all(stopped);
        while !all() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends a pause.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("the server runs");
        kill_process(running.jvm, signal).expect("the server is our child's child");
    }

    /// Starts the process and waits until it serves; `false` if it ended instead.
    fn run(&mut self) -> bool {
        let dir = self.dir.path();
        let config = format!(
            "tickTime=500\ndataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nmaxClientCnxns=0\nminSessionTimeout=1000\nmaxSessionTimeout=60000\n{lines}{secure}",
            data = dir.join("data").display(),
            port = self.port,
            lines = self.lines,
            secure = match self.secure_port {
                0 => String::new(),
                port => format!("secureClientPort={port}\n"),
            },
        );
        std::fs::write(dir.join("zoo.cfg"), config).expect("written");
        let log = std::fs::File::create(dir.join("log")).expect("created");
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "sh", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(&self.options)
            .args(["-Dzookeeper.forceSync=no", "-cp", CLASS_PATH, "org.apache.zookeeper.server.ZooKeeperServerMain"])
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
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            if self.serves() {
                return true;
            }
            if rustix::process::test_kill_process(jvm).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// The four-letter command `srvr` answers with a mode.
    fn serves(&self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"srvr")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("Mode:"))
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

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}
