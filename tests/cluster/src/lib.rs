//! Whole servers for tests: each [`Cluster`] is a PostgreSQL of its own, in a scratch directory that goes with it.
//!
//! The PostgreSQL is that of `ROLLUP_EXT_PG_CONFIG`, with the extension installed: `scripts/test cluster` sees to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

pub mod citus;
pub mod ingest;
pub mod random;
mod sql;
pub mod workshop;
pub use sql::{Sql, differences, section};

/// How a server is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Disconnects everybody and shuts down in order.
    Fast,
    /// Quits without a checkpoint: the next start recovers.
    Immediate,
}

/// One PostgreSQL server. Dropping it stops the server and removes its files.
pub struct Cluster {
    dir: PathBuf,
    port: u16,
    pg_ctl: PathBuf,
}

impl Cluster {
    /// A new server with `rollup_ext` preloaded and these further lines of configuration, started.
    pub fn start(conf: &str) -> Cluster {
        let cluster = Cluster::create(conf);
        cluster.resume();
        cluster
    }

    /// A new server as [`Cluster::start`] makes it, not started yet.
    pub fn create(conf: &str) -> Cluster {
        let cluster = Cluster::directory();
        run(server_command("cp").arg("-a").arg(template()).arg(cluster.data()));
        cluster.configure(&format!("shared_preload_libraries = 'rollup_ext'\n{conf}"));
        cluster
    }

    fn directory() -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = scratch().join(format!("{}.{count}", std::process::id()));
        make_directory(&dir);
        // The socket's name carries the port: in a directory of its own any number is free.
        Cluster { dir, port: 5432, pg_ctl: program("pg_ctl") }
    }

    /// A new server as [`Cluster::create`] makes it, where this extension is not installed.
    pub fn create_without(extension: &str, conf: &str) -> Cluster {
        let mut cluster = Cluster::create(conf);
        // PostgreSQL finds its files relative to its programs: a tree of links beside copies of the programs.
        let copy = |path: &str| PathBuf::from(format!("{}/installation{path}", cluster.dir.display()));
        for (option, how) in [("--bindir", "-aT"), ("--pkglibdir", "-asT"), ("--sharedir", "-asT")] {
            let from = installed(option);
            let to = copy(&from);
            run(server_command("mkdir").arg("-p").arg(to.parent().expect("a directory")));
            run(server_command("cp").arg(how).arg(&from).arg(&to));
        }
        let (library, share) = (copy(&installed("--pkglibdir")), copy(&installed("--sharedir")));
        for file in
            [library.join(format!("{extension}.so")), share.join(format!("extension/{extension}.control"))]
        {
            fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        cluster.pg_ctl = copy(&installed("--bindir")).join("pg_ctl");
        cluster
    }

    /// Appends these lines to `postgresql.conf`; the last line of a setting counts.
    pub fn configure(&self, conf: &str) {
        use std::io::Write;
        let file = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(&file).expect("a configuration");
        let socket = self.dir.display();
        writeln!(file, "unix_socket_directories = '{socket}'\nport = {}\n{conf}", self.port)
            .expect("the configuration is writable");
    }

    /// Takes connections over TCP on loopback too, from the next start on, at a port nobody uses.
    pub fn listen(&mut self) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        self.port = free.expect("a free port").port();
        self.configure("listen_addresses = '127.0.0.1'");
    }

    /// The port of the socket, and of TCP after [`Cluster::listen`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts the server after a stop or a crash and waits until it takes connections.
    pub fn resume(&self) {
        // After a SIGKILL the old children may hold the shared memory for a moment.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let output = self
                .pg_ctl(&["start", "-w", "-t", "120", "-l"])
                .arg(self.log_path())
                .output()
                .expect("pg_ctl runs");
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Stops the server.
    pub fn stop(&self, how: Stop) {
        let mode = if how == Stop::Fast { "fast" } else { "immediate" };
        run(self.pg_ctl(&["stop", "-w", "-m", mode]).stdout(Stdio::null()));
    }

    /// Stops the server in order and starts it again.
    pub fn restart(&self) {
        self.stop(Stop::Fast);
        self.resume();
    }

    /// SIGKILL to the postmaster: what a crash of the machine's power supply leaves is on disk.
    pub fn kill(&self) {
        assert!(self.kill_process(self.postmaster()), "the postmaster is gone");
    }

    /// SIGKILL to one process of the server: the postmaster then restarts all the others. Whether it was still there.
    pub fn kill_process(&self, pid: i32) -> bool {
        let output = server_command("kill").arg("-KILL").arg(pid.to_string()).output().expect("kill runs");
        output.status.success()
    }

    /// Process id of the postmaster.
    pub fn postmaster(&self) -> i32 {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).expect("the server runs");
        file.lines().next().and_then(|line| line.trim().parse().ok()).expect("a process id")
    }

    /// A hot standby of this server that streams from it, started.
    pub fn standby(&self) -> Cluster {
        let standby = Cluster::directory();
        run(server_command(program("pg_basebackup"))
            .args(["--checkpoint=fast", "--write-recovery-conf", "--username=postgres", "--pgdata"])
            .arg(standby.data())
            .args(["--host".as_ref(), self.dir.as_os_str()])
            .args(["--port", &self.port.to_string()]));
        standby.configure("");
        standby.resume();
        standby
    }

    /// Makes a standby the primary and waits until it is.
    pub fn promote(&self) {
        run(self.pg_ctl(&["promote", "-w"]).stdout(Stdio::null()));
    }

    /// A connection as the superuser; panics when there is none.
    pub fn connect(&self, database: &str) -> Client {
        self.try_connect(database).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// A connection as the superuser, as long as the server takes any.
    pub fn try_connect(&self, database: &str) -> Result<Client, postgres::Error> {
        self.config().dbname(database).connect(NoTls)
    }

    /// How to connect, to change the user, say.
    pub fn config(&self) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host_path(&self.dir).port(self.port).user("postgres");
        config
    }

    /// A new database with the extension, and a connection to it.
    pub fn database(&self, name: &str) -> Client {
        self.connect("postgres").run(&format!("CREATE DATABASE {name}"));
        let mut client = self.connect(name);
        client.run("CREATE EXTENSION rollup_ext");
        client
    }

    /// Runs a script in psql, which stops at the first error; its output, unaligned and without headers.
    pub fn psql(&self, database: &str, script: &str) -> Result<String, String> {
        use std::io::Write;
        let mut child = Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database])
            .arg("-h")
            .arg(&self.dir)
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let script = script.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().expect("psql ends");
        // psql may stop reading at an error: what it then says is what counts.
        let _ = writer.join().expect("the writer does not panic");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// A database as pg_dump writes it.
    pub fn dump(&self, database: &str) -> String {
        let output = Command::new(program("pg_dump"))
            .args(["-U", "postgres", "-p", &self.port.to_string(), "-h"])
            .arg(&self.dir)
            .arg(database)
            .output()
            .expect("pg_dump runs");
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a dump in UTF-8")
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Directory of the socket.
    pub fn socket_directory(&self) -> &Path {
        &self.dir
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn pg_ctl(&self, arguments: &[&str]) -> Command {
        let mut command = server_command(&self.pg_ctl);
        command.arg("-D").arg(self.data()).args(arguments);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log ends with");
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(30)..].iter().for_each(|line| eprintln!("{line}"));
        }
        // It may be down already; the files go in any case.
        let _ = self.pg_ctl(&["stop", "-w", "-m", "immediate"]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Asks until the answer is there; panics with `what` after `seconds`.
pub fn wait_for<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether an extension can be created here. If not, says so in the form that `scripts/test` counts as skipped:
/// `if !available("citus") { return }`.
pub fn available(extension: &str) -> bool {
    let found = extension_file(&format!("{extension}.control")).exists();
    if !found {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        println!("skipped {name}: the extension {extension} is not installed");
    }
    found
}

/// A file in the directory of control files and scripts.
pub fn extension_file(name: &str) -> PathBuf {
    Path::new(&installed("--sharedir")).join("extension").join(name)
}

/// A directory of the installation, by the option of pg_config that prints it.
fn installed(option: &str) -> String {
    let output = Command::new(pg_config()).arg(option).output().expect("pg_config runs");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

fn pg_config() -> PathBuf {
    std::env::var_os("ROLLUP_EXT_PG_CONFIG")
        .expect("ROLLUP_EXT_PG_CONFIG names a pg_config: run these tests with scripts/test cluster")
        .into()
}

fn program(name: &str) -> PathBuf {
    pg_config().with_file_name(name)
}

/// A command as the server's operating-system user: PostgreSQL does not run as root.
pub fn server_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // A backtrace for every error would drown the server's log.
    command.current_dir("/").env_remove("RUST_BACKTRACE");
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{message}");
}

/// Where the servers of this process live; short, because a socket's path may have 107 bytes.
fn scratch() -> PathBuf {
    std::env::temp_dir()
}

fn make_directory(dir: &Path) {
    fs::create_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(dir));
    }
    run(Command::new("chmod").arg("700").arg(dir));
}

/// A data directory fresh from initdb, which every server of this process is a copy of.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = scratch().join(format!("{}.template", std::process::id()));
        make_directory(&dir);
        let data = dir.join("data");
        run(server_command(program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--pgdata"])
            .arg(&data));
        let conf = "listen_addresses = ''\nfsync = off\nmax_worker_processes = 32\n\
                    max_prepared_transactions = 10\n";
        let file = data.join("postgresql.conf");
        let text = fs::read_to_string(&file).expect("initdb wrote it") + conf;
        fs::write(&file, text).expect("the configuration is writable");
        data
    })
}
