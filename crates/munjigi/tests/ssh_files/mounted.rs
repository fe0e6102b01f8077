//! A node's directory, mounted with the real `sshfs`: edited, listed, renamed in.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Files, noise};
use crate::faults::user;
use crate::harness::ssh::end;
use crate::harness::wait_for;

/// A mounted directory, which is let go whatever becomes of the test.
struct Mount {
    at: PathBuf,
    sshfs: Child,
}

impl Mount {
    fn new(files: &Files, what: &Path) -> Self {
        let at = files.here("mount");
        fs::create_dir(&at).unwrap();
        let mut command = Command::new("sshfs");
        // In the foreground, so that it is this test's own process.
        command.args(["-f", "-F", files.ssh.config().to_str().unwrap(), "-o", "idmap=user"]);
        command.arg(format!("{}@web-1.munjigi:{}", user(), what.display())).arg(&at);
        files.ssh.configure(&mut command);
        let sshfs = command.stdin(Stdio::null()).spawn().unwrap();
        let outside = fs::metadata(files.here("")).unwrap().dev();
        let mount = Self { at, sshfs };
        wait_for("the mount", || fs::metadata(&mount.at).ok().filter(|meta| meta.dev() != outside).map(drop));
        mount
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn unmount(&mut self) {
        wait_for("the end of the mount", || {
            Command::new("fusermount3").arg("-u").arg(&self.at).status().unwrap().success().then_some(())
        });
        assert!(end(&mut self.sshfs, "sshfs").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It is not mounted any more, unless the test failed.
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(&self.at).stderr(Stdio::null()).status();
        let _ = self.sshfs.kill();
        let _ = self.sshfs.wait();
    }
}

#[test]
fn a_directory_of_a_node_is_mounted_and_worked_in() {
    if !Path::new("/dev/fuse").exists() || Command::new("sshfs").arg("--version").output().is_err() {
        println!("there is no /dev/fuse or no sshfs here, so nothing is mounted");
        return;
    }
    let files = Files::start();
    let there = files.there("home");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("old"), "before").unwrap();
    let large = noise(5_000_000);
    let mut mount = Mount::new(&files, &there);
    assert_eq!(fs::read_to_string(mount.path("old")).unwrap(), "before");
    // Edited, as editors do: beside it, and in its place.
    fs::write(mount.path(".old.swp"), "after").unwrap();
    fs::rename(mount.path(".old.swp"), mount.path("old")).unwrap();
    assert_eq!(fs::read_to_string(there.join("old")).unwrap(), "after");
    let mut file = fs::OpenOptions::new().append(true).open(mount.path("old")).unwrap();
    file.write_all(b" and more").unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(there.join("old")).unwrap(), "after and more");
    // Directories, names, modes, links, sizes.
    fs::create_dir_all(mount.path("깊은/곳")).unwrap();
    fs::write(mount.path("깊은/곳/large"), &large).unwrap();
    assert!(fs::read(mount.path("깊은/곳/large")).unwrap() == large);
    fs::set_permissions(mount.path("깊은/곳/large"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("곳/large", mount.path("깊은/link")).unwrap();
    fs::hard_link(mount.path("old"), mount.path("hard")).unwrap();
    assert_eq!(fs::read_link(there.join("깊은/link")).unwrap(), Path::new("곳/large"));
    assert_eq!(fs::metadata(there.join("깊은/곳/large")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(there.join("hard")).unwrap().nlink(), 2);
    let mut names: Vec<_> =
        fs::read_dir(&mount.at).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["hard", "old", "깊은"]);
    let file = fs::OpenOptions::new().read(true).write(true).open(mount.path("깊은/곳/large")).unwrap();
    file.write_all_at(b"middle", 2_000_000).unwrap();
    file.set_len(2_500_000).unwrap();
    drop(file);
    let changed = fs::read(there.join("깊은/곳/large")).unwrap();
    assert_eq!((changed.len(), &changed[2_000_000..2_000_006]), (2_500_000, &b"middle"[..]));
    let mut file = fs::File::open(mount.path("깊은/곳/large")).unwrap();
    file.seek(SeekFrom::Start(2_000_000)).unwrap();
    // How much room there is, and what is not there.
    assert!(nix::sys::statvfs::statvfs(&mount.at).unwrap().blocks() > 0);
    assert_eq!(fs::read(mount.path("missing")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    drop(file);
    fs::remove_file(mount.path("hard")).unwrap();
    fs::remove_dir_all(mount.path("깊은")).unwrap();
    mount.unmount();
    let left: Vec<_> = fs::read_dir(&there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["old"]);
    files.told("ChangeFile", &there.join(".old.swp"), |event| {
        let about = &event["additionalEventData"];
        about["action"] == "rename" && about["to"] == there.join("old").to_str().unwrap()
    });
    files.told("UploadFile", &there.join("깊은/곳/large"), |event| {
        event["additionalEventData"]["bytes"] == 5_000_000
    });
    files
        .told("ChangeFile", &there.join("깊은"), |event| event["additionalEventData"]["action"] == "removeDirectory");
}
