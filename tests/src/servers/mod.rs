//! Real servers of other people, for tests: started on free ports in directories of their own, ended with the test.
//!
//! Each runs under a shell that waits for its standard input to close: whatever ends the test's process, a panic or a signal, closes
//! it, and the shell kills the server by its pid.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than any of them takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache ZooKeeper, of Debian's package `zookeeper`.
    ZooKeeper,
    /// etcd, of Debian's package `etcd-server`.
    Etcd,
}

const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";

impl Kind {
    /// Whether it is installed. Where it is required (`FARCALL_SERVERS=required`) and not there, the test fails; else it says that it
    /// skips.
    pub fn is_here(self) -> bool {
        let here = match self {
            Kind::ZooKeeper => Path::new(ZOOKEEPER_JAR).exists() && program("java").is_some(),
            Kind::Etcd => program("etcd").is_some(),
        };
        if !here {
            let required = std::env::var("FARCALL_SERVERS").is_ok_and(|v| v == "required");
            assert!(!required, "{self:?} is not installed: apt-get install etcd-server etcd-client zookeeper");
            eprintln!("skipped: {self:?} is not installed");
        }
        here
    }
}

/// Where a program is.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// One server of one kind: its directory and ports, and its process while it runs.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    directory: PathBuf,
    /// For clients, and among servers.
    ports: [u16; 2],
    process: Option<Process>,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one and waits until it answers; `None` if it is not installed.
    pub fn start(kind: Kind) -> Option<Server> {
        Server::start_with(kind, &[])
    }

    /// The same with further arguments: lines of `zoo.cfg`, options of etcd.
    pub fn start_with(kind: Kind, arguments: &[&str]) -> Option<Server> {
        if !kind.is_here() {
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("farcall-{kind:?}-{}-{number}", std::process::id()));
        let arguments = arguments.iter().map(|text| text.to_string()).collect();
        let mut server = Server { kind, directory, ports: [free_port(), free_port()], process: None, arguments };
        server.start_again();
        Some(server)
    }

    /// `127.0.0.1:port`, for clients.
    pub fn place(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Starts it where it was, with the data it had, and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        std::fs::create_dir_all(self.directory.join("data")).expect("a directory for the server");
        let start = Instant::now();
        // A port that was free may be taken by now; the server ends then, and is started once more.
        while start.elapsed() < PATIENCE {
            let process = Process::start(&self.command(), &self.directory);
            while start.elapsed() < PATIENCE && process.is_alive() {
                if self.answers() {
                    self.process = Some(process);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        panic!("{:?} did not come up:\n{log}", self.kind);
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Takes all its data away; it must not run.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "it runs");
        std::fs::remove_dir_all(self.directory.join("data")).expect("its data can be taken away");
    }

    /// Stops it dead: its connections stay open and nothing comes.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    fn command(&self) -> Vec<String> {
        let [clients, peers] = self.ports;
        let data = self.directory.join("data").display().to_string();
        let mut command: Vec<String> = match self.kind {
            Kind::ZooKeeper => {
                let file = self.directory.join("zoo.cfg");
                let mut text = format!(
                    "tickTime=200\nmaxSessionTimeout=60000\ndataDir={data}\nclientPort={clients}\nclientPortAddress=127.0.0.1\n\
                     admin.enableServer=false\nmaxClientCnxns=0\n4lw.commands.whitelist=srvr\n"
                );
                self.arguments.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
                std::fs::write(&file, text).expect("its settings can be written");
                let jvm = ["java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no", "-cp"];
                let main = [ZOOKEEPER_JAR, "org.apache.zookeeper.server.quorum.QuorumPeerMain"];
                jvm.into_iter().chain(main).map(str::to_owned).chain([file.display().to_string()]).collect()
            }
            Kind::Etcd => {
                let (client, peer) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
                let text = format!(
                    "etcd --name n1 --data-dir {data} --listen-client-urls {client} --advertise-client-urls {client} \
                     --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster n1={peer} \
                     --heartbeat-interval 50 --election-timeout 500 --logger zap"
                );
                text.split_whitespace().map(str::to_owned).collect()
            }
        };
        if self.kind == Kind::Etcd {
            command.extend(self.arguments.iter().cloned());
        }
        command
    }

    /// Whether it serves.
    fn answers(&self) -> bool {
        let (ask, good) = match self.kind {
            Kind::ZooKeeper => ("srvr", "Mode: "),
            Kind::Etcd => ("GET /health HTTP/1.0\r\n\r\n", "\"health\":\"true\""),
        };
        let Ok(mut stream) = TcpStream::connect(self.place()) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok();
        let mut answer = String::new();
        stream.write_all(ask.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains(good)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process = None;
        // What is left of a failed test is for who looks into it.
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }
}

/// A server's process and the shell that watches over it.
#[derive(Debug)]
struct Process {
    shell: Child,
    pid: u32,
}

impl Process {
    fn start(command: &[String], directory: &Path) -> Process {
        const SCRIPT: &str = r#"log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!; read -r _; kill -KILL $! 2>/dev/null; wait"#;
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(directory.join("log"))
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("the shell says the pid");
        Process { shell, pid: line.trim().parse().expect("a pid") }
    }

    fn is_alive(&self) -> bool {
        // A zombie has no command line.
        std::fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| !line.is_empty())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shell.stdin = None;
        self.shell.wait().ok();
    }
}

/// A port that is free, and stays so while its server is away: below those that the system gives to whoever connects.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(37).wrapping_add(n) % 10_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
