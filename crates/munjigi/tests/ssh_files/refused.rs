//! What the OS user may not do on the node: every program says so, and the trail has it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{Files, Ran};
use crate::faults::user;

/// An OS user without rights: this test's own, or root's `nobody` with a shell, which only the agent sees.
fn without_rights(files: &mut Files) -> String {
    if !nix::unistd::geteuid().is_root() {
        return user();
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let with_shell = |line: &str| match line.strip_prefix("nobody:") {
        Some(_) => format!("{}:/bin/sh\n", line.rsplit_once(':').unwrap().0),
        None => format!("{line}\n"),
    };
    let own = files.here("passwd");
    fs::write(&own, accounts.lines().map(with_shell).collect::<String>()).unwrap();
    files.agent.stop();
    let script = format!("mount --bind {} /etc/passwd && exec \"$@\"", own.display());
    files.agent.run_under(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    "nobody".to_owned()
}

#[test]
fn what_the_system_refuses_is_said_by_every_program_and_told() {
    let mut files = Files::start();
    let who = without_rights(&mut files);
    let files = files;
    fs::set_permissions(files.there(""), fs::Permissions::from_mode(0o755)).unwrap();
    for dir in ["closed", "fixed"] {
        fs::create_dir(files.there(dir)).unwrap();
        fs::write(files.there(&format!("{dir}/file")), "secret").unwrap();
        fs::set_permissions(files.there(&format!("{dir}/file")), fs::Permissions::from_mode(0o000)).unwrap();
    }
    fs::set_permissions(files.there("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(files.there("fixed"), fs::Permissions::from_mode(0o555)).unwrap();
    let (local, got) = (files.here("local"), files.here("got"));
    fs::write(&local, "mine").unwrap();
    let (local, got) = (local.to_str().unwrap(), got.to_str().unwrap());
    let user = format!("User={who}");
    let run = |program: &str, arguments: &[&str]| {
        Ran::of(files.ssh.command(program, &[&["-o", user.as_str()], arguments].concat()), b"")
    };
    let shell = format!("ssh -F {} -o {user}", files.ssh.config().display());
    let rsync = |arguments: &[&str]| {
        let mut command = Command::new("rsync");
        command.args(["-e", &shell]).args(arguments);
        files.ssh.configure(&mut command);
        Ran::of(command, b"")
    };
    let sftp = |line: String| {
        let batch = files.here("batch");
        fs::write(&batch, line).unwrap();
        run("sftp", &["-b", batch.to_str().unwrap(), "web-1.munjigi"])
    };
    for dir in ["closed", "fixed"] {
        let (file, new) = (files.on_node(&format!("{dir}/file")), files.on_node(&format!("{dir}/new")));
        let (file_path, new_path) = (files.there(&format!("{dir}/file")), files.there(&format!("{dir}/new")));
        let (file_path, new_path) = (file_path.display(), new_path.display());
        for ran in [
            run("scp", &["-s", &file, got]),
            run("scp", &["-s", local, &new]),
            run("scp", &["-O", &file, got]),
            run("scp", &["-O", local, &new]),
            rsync(&[&file, got]),
            rsync(&[local, &new]),
            sftp(format!("get {file_path} {got}\n")),
            sftp(format!("put {local} {new_path}\n")),
            sftp(format!("mkdir {new_path}\n")),
            sftp(format!("rm {file_path}\n")),
            sftp(format!("rename {file_path} {new_path}\n")),
        ] {
            // OpenSSH's programs say it in their words, the worker in its own; what they may not look at they do not find.
            let said = ran.err.to_lowercase();
            let not_found = said.contains("not found") || said.contains("no such file");
            let is_said = said.contains("permission denied") || (dir == "closed" && not_found);
            assert!(ran.code != Some(0) && is_said, "{dir}: {ran:?}");
        }
        for (name, path) in [("DownloadFile", "file"), ("UploadFile", "new")] {
            files.told(name, &files.there(&format!("{dir}/{path}")), |event| {
                event["errorCode"] == "FileNotCopied"
                    && event["errorMessage"]
                        .as_str()
                        .is_some_and(|why| why.to_lowercase().contains("permission denied"))
            });
        }
        for (action, path) in [("makeDirectory", "new"), ("remove", "file")] {
            files.told("ChangeFile", &files.there(&format!("{dir}/{path}")), |event| {
                event["additionalEventData"]["action"] == action && event["errorCode"] == "FileNotChanged"
            });
        }
    }
    assert!(!fs::exists(got).unwrap());
    // Somebody without a home is where sshd would leave him.
    if who == "nobody" {
        let ran = sftp("pwd\n".to_owned());
        assert!(ran.out.contains("working directory: /"), "{ran:?}");
    }
    for dir in ["closed", "fixed"] {
        fs::set_permissions(files.there(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
}
