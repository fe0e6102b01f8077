//! What the older systems left on a host, and how it is put aside: moved below `/var/lib/munjigi/replaced`, so that it can be
//! put back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::System;

/// Where old pieces go.
const ASIDE: &str = "var/lib/munjigi/replaced";
const SUDOERS: &str = "etc/sudoers.d";

/// Returns the files of a system that are there.
pub(super) fn find(root: &Path, system: System) -> Vec<PathBuf> {
    let names: &[&str] = match system {
        System::Widdix => &[
            "etc/cron.d/import_users",
            "opt/import_users.sh",
            "opt/authorized_keys_command.sh",
            "usr/bin/import_users.sh",
            "usr/bin/authorized_keys_command.sh",
            "etc/aws-ec2-ssh.conf",
        ],
        System::Andromedarabbit => &[
            "etc/systemd/system/import-iam-users.service",
            "etc/systemd/system/import-iam-users.timer",
            "etc/systemd/system/install-aws-ec2-ssh.service",
            "opt/import_users.sh",
            "opt/authorized_keys_command.sh",
            "opt/aws/bin/aws",
            "etc/aws-ec2-ssh.conf",
        ],
        System::KeyManager => &["root/bin/authorizedkeys-command"],
        System::Eic => &[
            "lib/systemd/system/ssh.service.d/ec2-instance-connect.conf",
            "lib/systemd/system/sshd.service.d/ec2-instance-connect.conf",
            "usr/lib/systemd/system/ssh.service.d/ec2-instance-connect.conf",
            "usr/lib/systemd/system/sshd.service.d/ec2-instance-connect.conf",
        ],
    };
    let mut found: Vec<PathBuf> = names.iter().map(PathBuf::from).filter(|name| is_file(&root.join(name))).collect();
    if matches!(system, System::Widdix | System::Andromedarabbit) {
        found.extend(old_sudoers(root));
    }
    found
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() || meta.is_symlink())
}

/// The old import wrote a file for each person, with one line that is its own; a file that says more is somebody's.
fn old_sudoers(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join(SUDOERS)) else { return Vec::new() };
    let own = |entry: &fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let name = text.split(' ').next().unwrap_or_default();
        // Dots of the name stand as blanks in the file's.
        text.trim_end() == format!("{name} ALL=(ALL) NOPASSWD:ALL")
            && entry.file_name().to_str() == Some(name.replace('.', " ").as_str())
    };
    let mut found: Vec<PathBuf> =
        entries.flatten().filter(own).map(|entry| Path::new(SUDOERS).join(entry.file_name())).collect();
    found.sort();
    found
}

/// Moves pieces aside; returns where they are now.
pub(super) fn put_aside(root: &Path, pieces: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for piece in pieces {
        let (from, to) = (root.join(piece), root.join(ASIDE).join(piece));
        let parent = to.parent().context("a piece has no directory")?;
        fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                fs::copy(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
                fs::remove_file(&from).with_context(|| format!("failed to remove {}", from.display()))?;
            }
            done => done.with_context(|| format!("failed to move {}", from.display()))?,
        }
        moved.push(to);
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_pieces_are_found_and_put_aside_and_those_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("etc/cron.d/import_users", "*/10 * * * * root /opt/import_users.sh\n");
        write("opt/authorized_keys_command.sh", "#!/bin/bash\n");
        write("etc/sudoers.d/kim lee", "kim.lee ALL=(ALL) NOPASSWD:ALL\n");
        write("etc/sudoers.d/admins", "%admins ALL=(ALL) ALL\n");
        write("etc/sudoers.d/park", "park ALL=(ALL) NOPASSWD:ALL\nDefaults !lecture\n");
        let found = find(root, System::Widdix);
        assert_eq!(found.len(), 3, "{found:?}");
        put_aside(root, &found).unwrap();
        assert!(
            !root.join("etc/sudoers.d/kim lee").exists() && root.join(ASIDE).join("etc/sudoers.d/kim lee").exists()
        );
        assert!(root.join("etc/sudoers.d/admins").exists() && root.join("etc/sudoers.d/park").exists());
        assert!(find(root, System::Widdix).is_empty());
        assert!(find(root, System::Eic).is_empty());
    }
}
