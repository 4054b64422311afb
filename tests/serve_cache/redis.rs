//! A real redis-server, started for a test on a port of its own and gone with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use halfbyte::serve::cache::{Options, Second};

use super::Cache;

pub struct Server {
    child: Option<Child>,
    pub port: u16,
}

impl Server {
    /// Starts one; `None`, with a printed line, where there is none to be had. With CI set there must be one.
    pub fn start() -> Option<Server> {
        let known = Command::new("redis-server").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "redis-server must be installed where CI is set");
            println!("SKIP the second level of the cache: there is no redis-server (apt-get install redis-server)");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Server { child: None, port };
        server.run();
        Some(server)
    }

    /// Runs it, empty.
    pub fn run(&mut self) {
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--port"];
        let child = Command::new("redis-server").args(options).arg(self.port.to_string()).stdout(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
        eventually("the server answers", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Kills it without a goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that was stopped too.
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal: STOP, after which it takes connections and answers nothing, or CONT.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// A command of its protocol, and its answer's bytes.
    pub fn ask(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let mut command = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            command.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            command.extend_from_slice(part);
            command.extend_from_slice(b"\r\n");
        }
        stream.write_all(&command).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    /// The bytes that it holds under a name.
    pub fn value(&self, name: &str) -> Vec<u8> {
        let answer = self.ask(&[b"GET", name.as_bytes()]);
        let start = answer.windows(2).position(|w| w == b"\r\n").unwrap() + 2;
        answer[start..answer.len() - 2].to_vec()
    }

    pub fn put(&self, name: &str, value: &[u8]) {
        assert_eq!(self.ask(&[b"SET", name.as_bytes(), value]), b"+OK\r\n");
    }

    /// Options of a cache with this second level.
    pub fn options(&self) -> Options {
        Options { second: Some(second(self.port)), ..Options::default() }
    }

    /// A cache with this second level, connected.
    pub fn cache(&self) -> Cache {
        connected(self.options())
    }
}

pub fn second(port: u16) -> Second {
    let url = format!("redis://127.0.0.1:{port}/");
    // More time than in service: tests run on machines that have other things to do.
    Second { url, budget: Duration::from_millis(50), open_for: Duration::from_millis(100), ..Second::default() }
}

pub fn connected(options: Options) -> Cache {
    let cache = Cache::new(options).unwrap();
    eventually("the cache is connected", || cache.stats().second.unwrap().reachable);
    cache
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for what must come.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
