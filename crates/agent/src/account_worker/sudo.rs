//! The drop-in of sudoers on disk: one file, checked before it is in force, replaced as a whole (R15).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::Path;

use munjigi_core::account::sudoers::{HEADER, check};

use crate::tool;

const DIRECTORY: &str = "/etc/sudoers.d";
const DROP_IN: &str = "/etc/sudoers.d/munjigi";
/// sudo leaves out names with a dot in them.
const NEW: &str = "/etc/sudoers.d/.munjigi.new";

/// Puts the text in force, or takes the file away if there is none. What somebody else wrote there stays.
pub(super) fn put(text: Option<&str>) -> Result<(), String> {
    let present = match fs::read_to_string(DROP_IN) {
        Ok(present) => Some(present),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{DROP_IN} cannot be read: {error}")),
    };
    if present.as_deref() == text {
        return Ok(());
    }
    if present.is_some_and(|present| !present.starts_with(HEADER)) {
        return Err(format!("{DROP_IN} is there and not Munjigi's; move it away"));
    }
    let Some(text) = text else {
        return fs::remove_file(DROP_IN).map_err(|error| format!("{DROP_IN} cannot be removed: {error}"));
    };
    if !Path::new(DIRECTORY).is_dir() {
        return Err(format!("this node has no {DIRECTORY}, so nobody gets rights by sudo; install sudo"));
    }
    if !check(text) {
        return Err("the rights by sudo are not of the form that is known; they stay as they are".to_owned());
    }
    let written = write(text).map_err(|error| format!("{NEW} cannot be written: {error}"));
    let judged = written.and_then(|()| match tool::find("visudo") {
        Some(visudo) => tool::run(&visudo, &["-c", "-q", "-f", NEW]),
        None => Ok(()),
    });
    let done = judged
        .and_then(|()| fs::rename(NEW, DROP_IN).map_err(|error| format!("{DROP_IN} cannot be replaced: {error}")));
    if done.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(NEW);
    }
    done
}

fn write(text: &str) -> std::io::Result<()> {
    match fs::remove_file(NEW) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o440).custom_flags(flags).open(NEW)?;
    fchown(&file, Some(0), Some(0))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
