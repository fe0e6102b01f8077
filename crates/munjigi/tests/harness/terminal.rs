//! A client in a terminal of its own, as a person has it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use super::{TestServer, wait_for};

/// A client in a terminal of its own.
pub(crate) struct Terminal {
    /// The person's side.
    pub(crate) master: File,
    slave: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    before: Termios,
}

impl Terminal {
    /// Starts a command of ours with a terminal of this size, whose screen is read.
    pub(crate) fn start(server: &TestServer, rows: u16, columns: u16, arguments: &[&str]) -> Self {
        let terminal = Self::start_unread(server, rows, columns, arguments);
        terminal.read();
        terminal
    }

    /// Starts a command of ours with a terminal of this size, whose screen nobody reads yet.
    pub(crate) fn start_unread(server: &TestServer, rows: u16, columns: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new(super::binary());
        command.args(arguments);
        server.configure(&mut command);
        Self::run_unread(&command, rows, columns)
    }

    /// Runs any command, with its variables, in a terminal of this size, whose screen is read.
    pub(crate) fn run(command: &Command, rows: u16, columns: u16) -> Self {
        let terminal = Self::run_unread(command, rows, columns);
        terminal.read();
        terminal
    }

    fn run_unread(inner: &Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let (master, slave) = (File::from(pair.master), File::from(pair.slave));
        let before = tcgetattr(slave.as_fd()).unwrap();
        // setsid makes the terminal the controlling one of a new session.
        let mut command = Command::new("setsid");
        command.args([OsStr::new("--ctty"), OsStr::new("--wait"), inner.get_program()]).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master, slave, child, seen: Arc::default(), before }
    }

    /// Reads the screen from now on.
    pub(crate) fn read(&self) {
        let (mut reader, sink) = (self.master.try_clone().unwrap(), self.seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
    }

    /// Types.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown the text, and forgets everything before and with it.
    pub(crate) fn expect(&self, text: &str) -> String {
        wait_for(&format!("{text:?} on the screen, which shows {:?}", self.screen()), || {
            let mut seen = self.seen.lock().unwrap();
            let at = seen.windows(text.len()).position(|window| window == text.as_bytes())?;
            let shown: Vec<u8> = seen.drain(..at + text.len()).collect();
            Some(String::from_utf8_lossy(&shown).into_owned())
        })
    }

    /// Returns what the screen has shown and nobody has expected yet.
    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Gives the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let status = Command::new("stty")
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .stdin(Stdio::from(self.slave.try_clone().unwrap()))
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for the end; the terminal must be as it was.
    pub(crate) fn end(mut self) -> Option<i32> {
        let status = wait_for("the client's end", || self.child.try_wait().unwrap());
        let after = tcgetattr(self.slave.as_fd()).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags, "the terminal was not restored");
        assert_eq!(after.input_flags, self.before.input_flags, "the terminal was not restored");
        status.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
