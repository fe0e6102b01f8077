//! What the older systems left on a host, and where it goes: moved below `/var/lib/munjigi/replaced`, so that it can be put
//! back. Nothing below `/usr` is touched, which belongs to packages: their units are masked from `/etc`, their scripts stay
//! where nobody calls them any more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::System;
use super::journal::Journal;

/// Where old pieces go.
pub(super) const ASIDE: &str = "var/lib/munjigi/replaced";
const SUDOERS: &str = "etc/sudoers.d";
const UNITS: &str = "etc/systemd/system";
const EIC_DROP_IN: &str = "ec2-instance-connect.conf";

/// What a system has on a host; paths are below its root.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pieces {
    /// Files and links that are moved away.
    pub(super) moved: Vec<PathBuf>,
    /// Drop-ins of packages, each masked by a link to `/dev/null` of this name.
    pub(super) masked: Vec<PathBuf>,
    /// Files of packages, which stay.
    pub(super) left: Vec<PathBuf>,
    /// Units that run no more.
    pub(super) units: BTreeSet<String>,
}

/// Returns what a system has below a root.
pub(super) fn find(root: &Path, system: System) -> Pieces {
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
        System::Eic => &[],
    };
    let found = names.iter().map(PathBuf::from).filter(|name| is_file(&root.join(name)));
    let (left, moved): (Vec<PathBuf>, Vec<PathBuf>) = found.partition(|name| name.starts_with("usr"));
    let mut pieces = Pieces { moved, left, ..Pieces::default() };
    if matches!(system, System::Widdix | System::Andromedarabbit) {
        pieces.moved.extend(old_sudoers(root));
    }
    let units =
        pieces.moved.iter().filter(|path| path.starts_with(UNITS)).filter_map(|path| path.file_name()?.to_str());
    pieces.units = units.map(str::to_owned).collect();
    pieces.moved.extend(enabled(root, &pieces.units));
    if system == System::Eic {
        eic(root, &mut pieces);
    }
    pieces
}

/// The drop-ins by which the package ec2-instance-connect gave sshd a command line of its own.
fn eic(root: &Path, pieces: &mut Pieces) {
    for service in ["ssh.service", "sshd.service"] {
        let own = Path::new(UNITS).join(format!("{service}.d")).join(EIC_DROP_IN);
        let is_masked = fs::read_link(root.join(&own)).is_ok_and(|target| target == Path::new("/dev/null"));
        if !is_masked && is_file(&root.join(&own)) {
            pieces.moved.push(own.clone());
        }
        let packaged = ["lib/systemd/system", "usr/lib/systemd/system"];
        let is_packaged =
            packaged.iter().any(|place| is_file(&root.join(place).join(format!("{service}.d")).join(EIC_DROP_IN)));
        if is_packaged && !is_masked {
            pieces.masked.push(own);
            pieces.units.insert(service.to_owned());
        }
    }
}

/// Returns the links by which units are started.
fn enabled(root: &Path, units: &BTreeSet<String>) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join(UNITS)) else { return Vec::new() };
    let directories = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<PathBuf> = directories
        .filter(|name| name.ends_with(".wants") || name.ends_with(".requires"))
        .flat_map(|name| units.iter().map(move |unit| Path::new(UNITS).join(&name).join(unit)).collect::<Vec<_>>())
        .filter(|path| is_file(&root.join(path)))
        .collect();
    found.sort();
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

/// Moves and masks pieces; returns what was done, in words.
pub(super) fn put_aside(root: &Path, pieces: &Pieces, journal: &mut Journal) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    for piece in &pieces.moved {
        let to = root.join(ASIDE).join(piece);
        journal.rename(&root.join(piece), &to)?;
        done.push(format!("put aside: {}", to.display()));
    }
    for mask in &pieces.masked {
        journal.link(Path::new("/dev/null"), &root.join(mask))?;
        done.push(format!("masked: {}", root.join(mask).display()));
    }
    Ok(done)
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
        write("usr/bin/import_users.sh", "#!/bin/bash\n");
        let found = find(root, System::Widdix);
        assert_eq!((found.moved.len(), found.left.len()), (3, 1), "{found:?}");
        put_aside(root, &found, &mut Journal::default()).unwrap();
        assert!(
            !root.join("etc/sudoers.d/kim lee").exists() && root.join(ASIDE).join("etc/sudoers.d/kim lee").exists()
        );
        assert!(root.join("etc/sudoers.d/admins").exists() && root.join("etc/sudoers.d/park").exists());
        assert!(root.join("usr/bin/import_users.sh").exists(), "a package's");
        assert!(find(root, System::Widdix).moved.is_empty());
        assert_eq!(find(root, System::Eic), Pieces::default());
    }

    #[test]
    fn units_go_with_the_links_that_start_them_and_those_of_packages_are_masked() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "[Unit]\n").unwrap();
        };
        write("etc/systemd/system/import-iam-users.timer");
        write("etc/systemd/system/other.timer");
        fs::create_dir(root.join("etc/systemd/system/timers.target.wants")).unwrap();
        for name in ["import-iam-users.timer", "other.timer"] {
            let link = root.join("etc/systemd/system/timers.target.wants").join(name);
            std::os::unix::fs::symlink(Path::new("/etc/systemd/system").join(name), link).unwrap();
        }
        let found = find(root, System::Andromedarabbit);
        let link = "etc/systemd/system/timers.target.wants/import-iam-users.timer";
        assert_eq!(found.moved, [Path::new("etc/systemd/system/import-iam-users.timer"), Path::new(link)]);
        let mut journal = Journal::default();
        put_aside(root, &found, &mut journal).unwrap();
        assert!(fs::symlink_metadata(root.join(link)).is_err());
        assert!(root.join("etc/systemd/system/timers.target.wants").join("other.timer").symlink_metadata().is_ok());
        assert!(journal.undo().is_empty() && fs::symlink_metadata(root.join(link)).is_ok());

        write("lib/systemd/system/ssh.service.d/ec2-instance-connect.conf");
        let found = find(root, System::Eic);
        let mask = Path::new("etc/systemd/system/ssh.service.d/ec2-instance-connect.conf");
        assert_eq!((found.masked.as_slice(), found.moved.len()), ([mask.to_owned()].as_slice(), 0));
        put_aside(root, &found, &mut Journal::default()).unwrap();
        assert_eq!(fs::read_link(root.join(mask)).unwrap(), Path::new("/dev/null"));
        assert!(root.join("lib/systemd/system/ssh.service.d/ec2-instance-connect.conf").exists());
        assert_eq!(find(root, System::Eic), Pieces::default());
    }
}
