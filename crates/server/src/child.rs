//! For tests that need a process of their own: this test program is started again for one test, which acts as the child
//! when it is told a place to work in.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const PLACE: &str = "MUNJIGI_TEST_CHILD_PLACE";

/// Returns the place to work in if this process is a child.
pub(crate) fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// The command that runs one test, named with its modules, as a child.
pub(crate) fn command(test: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", test]).env(PLACE, place).stdin(Stdio::null());
    command
}

/// As [`command`], with a small file system in memory mounted at `place` for the child alone; `None` where that is not
/// allowed.
pub(crate) fn on_small_disk(test: &str, place: &Path, size: &str) -> Option<Command> {
    let unshare = ["--user", "--map-root-user", "--mount"];
    let allowed = Command::new("unshare").args(unshare).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(place).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let child = command(test, place);
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &script]).arg(place);
    command.arg(child.get_program()).args(child.get_args()).env(PLACE, place).stdin(Stdio::null());
    Some(command)
}

/// Everything a child wrote.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A child that is ended whatever happens to the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where files lie in memory on Linux.
const MEMORY: &str = "/dev/shm";

/// A directory in memory where there is room (containers often give 64 MiB): what a sync costs is not what these tests
/// look at.
pub(crate) fn memory() -> tempfile::TempDir {
    let room = nix::sys::statvfs::statvfs(MEMORY).map(|stat| stat.blocks_available() * stat.fragment_size());
    if room.is_ok_and(|bytes| bytes >= 1 << 30) { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() }.unwrap()
}

/// Tells whether a directory lies in memory.
pub(crate) fn in_memory(place: &Path) -> bool {
    place.starts_with(MEMORY)
}
