//! Lines in the system's log, where whoever looks into logins looks first.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// Where the system's log listens, and a line's priority there: `authpriv.info`.
const SOCKET: &str = "/dev/log";
const PRIORITY: u32 = 10 << 3 | 6;
/// Longest line in characters.
const MAX_LINE: usize = 1024;

/// Writes a line about logins, under the name of a program. It never waits for longer than 100 ms.
pub fn authentication(program: &str, text: &str) -> io::Result<()> {
    write(Path::new(SOCKET), program, text)
}

fn write(path: &Path, program: &str, text: &str) -> io::Result<()> {
    // One line stays one line, whatever stands in it.
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
    let line = format!("<{PRIORITY}>{program}[{}]: {text}", std::process::id());
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_millis(100)))?;
    socket.send_to(line.as_bytes(), path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_authpriv() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = UnixDatagram::bind(&path).unwrap();
        write(&path, "munjigi-agent", "first\nsshd[1]: second").unwrap();
        let mut line = [0; 200];
        let count = log.recv(&mut line).unwrap();
        let expected = format!("<86>munjigi-agent[{}]: firstsshd[1]: second", std::process::id());
        assert_eq!(std::str::from_utf8(&line[..count]).unwrap(), expected);
        assert!(write(&directory.path().join("none"), "x", "y").is_err());
    }
}
