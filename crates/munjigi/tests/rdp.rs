//! A desktop behind a node: FreeRDP, started by `munjigi rdp`, logs in at an xrdp of the test's own.
//!
//! xrdp asks PAM, and PAM the machine's users; so it runs in a mount namespace with users, settings and run-time files of
//! its own, which only root can make. Nothing of the machine's is read or changed.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid, chown};
use tempfile::TempDir;

use crate::harness::databases::program;
use crate::harness::{TestServer, free_port, output, success, wait_for};

/// Id of the desktop's only user, whom the machine does not know.
const USER_ID: u32 = 64_711;

/// A process that is killed and reaped when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An xrdp with one user, `desk`, whose password is `desk-secret`. There is no X server behind it: a login succeeds, and
/// the desktop never appears.
struct Desktop {
    /// The namespaces' first process; everything in them ends with it.
    _namespace: Killed,
    directory: TempDir,
    port: u16,
}

impl Desktop {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("munjigi-xrdp-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (own_port, manager_port) = (free_port(), free_port());
        let here = directory.path().display().to_string();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        for name in ["xrdp", "home"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        chown(&directory.path().join("home"), Some(Uid::from_raw(USER_ID)), Some(Gid::from_raw(USER_ID))).unwrap();
        let mut certificate = Command::new("openssl");
        certificate.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=desk.example"]);
        success(
            certificate
                .arg("-keyout")
                .arg(directory.path().join("key.pem"))
                .arg("-out")
                .arg(directory.path().join("cert.pem")),
        );
        for entry in std::fs::read_dir("/etc/xrdp").unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "ini") {
                std::fs::copy(&path, directory.path().join("xrdp").join(path.file_name().unwrap())).unwrap();
            }
        }
        success(Command::new("xrdp-keygen").arg("xrdp").arg(directory.path().join("xrdp/rsakeys.ini")));
        write(
            "xrdp/xrdp.ini",
            &format!(
                "[Globals]\nini_version=1\nfork=true\nport=tcp://.:{own_port}\nsecurity_layer=tls\ncertificate={here}/cert.pem\n\
             key_file={here}/key.pem\nssl_protocols=TLSv1.2, TLSv1.3\nautorun=Xorg\nallow_channels=true\nmax_bpp=32\n\
             [Logging]\nLogFile={here}/xrdp.log\nLogLevel=INFO\nEnableSyslog=false\n[Channels]\nrdpdr=true\nrdpsnd=true\n\
             cliprdr=true\n[Xorg]\nname=Xorg\nlib=libxup.so\nusername=ask\npassword=ask\nip=127.0.0.1\nport=-1\ncode=20\n"
            ),
        );
        write(
            "xrdp/sesman.ini",
            &format!(
                "[Globals]\nListenAddress=127.0.0.1\nListenPort={manager_port}\nEnableUserWindowManager=false\n\
             DefaultWindowManager=/bin/false\n[Security]\nAllowRootLogin=false\nMaxLoginRetry=4\nAlwaysGroupCheck=false\n\
             [Sessions]\nX11DisplayOffset=990\nMaxSessions=1\n[Logging]\nLogFile={here}/sesman.log\nLogLevel=INFO\n\
             EnableSyslog=false\n[Xorg]\nparam=/bin/false\n"
            ),
        );
        let hash = success(Command::new("openssl").args(["passwd", "-6", "desk-secret"]));
        write("passwd", &format!("root:x:0:0:root:/root:/bin/sh\ndesk:x:{USER_ID}:{USER_ID}::{here}/home:/bin/sh\n"));
        write("group", &format!("root:x:0:\nshadow:x:42:\ndesk:x:{USER_ID}:\n"));
        write("shadow", &format!("root:*:19000:0:99999:7:::\ndesk:{}:19000:0:99999:7:::\n", hash.trim()));
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /run; for f in passwd group shadow; do mount --bind {here}/$f /etc/$f; done; \
             mount --bind {here}/xrdp /etc/xrdp; xrdp-sesman --nodaemon & exec xrdp --nodaemon"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let desktop = Self { _namespace: Killed(command.spawn().unwrap()), directory, port: own_port };
        wait_for("xrdp to listen", || desktop.log().contains("xrdp_listen_pp done").then_some(()));
        desktop
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("xrdp.log")).unwrap_or_default()
    }
}

/// Starts an X server without a screen, and returns it with the display's name.
fn display(directory: &Path) -> (Killed, String) {
    let number = directory.join("display");
    // It writes the number that it took to a descriptor; the shell makes one of a file.
    let script = format!("exec Xvfb -displayfd 3 -screen 0 640x480x16 -nolisten tcp 3>{}", number.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Killed(command.spawn().unwrap());
    let name = wait_for("an X server", || {
        let text = std::fs::read_to_string(&number).ok()?;
        text.ends_with('\n').then(|| format!(":{}", text.trim()))
    });
    (server, name)
}

#[test]
fn freerdp_connects_and_logs_in_at_xrdp() {
    let here = ["xfreerdp", "xrdp", "xrdp-sesman", "xrdp-keygen", "Xvfb", "openssl"].map(program);
    if here.iter().any(Option::is_none) {
        return;
    }
    // Root of a container may not either.
    if !Uid::effective().is_root()
        || !output(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])).status.success()
    {
        eprintln!("passed over: only who may make namespaces can give xrdp users of its own");
        return;
    }
    let desktop = Desktop::start();
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let (_screen, display) = display(server.directory());
    let address = format!("localhost:{}", desktop.port);
    let put = ["target", "put", "desk", "--kind", "rdp", "--address", &address, "--through", "Role=bastion"];
    success(&mut server.munjigi(&[&put[..], &["--tls", "require", "--tls-name", "desk.example"]].concat()));
    for (password, said) in [("wrong", "login failed"), ("desk-secret", "login successful for user desk")] {
        let client = ["rdp", "desk", "--user", "desk", "--", "/cert:ignore", "/from-stdin:force", "/size:640x480"];
        let mut command = server.munjigi(&client);
        command.env("DISPLAY", &display).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Killed(command.spawn().unwrap());
        writeln!(running.0.stdin.take().unwrap(), "{password}").unwrap();
        wait_for(said, || desktop.log().contains(said).then_some(()));
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(running.0.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        running.0.wait().unwrap();
        assert_eq!(desktop.log().contains("login successful"), password == "desk-secret");
    }
    let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
    assert!(trail.contains(":target/desk") && !trail.contains("desk-secret"));
}

#[test]
fn a_file_for_any_client_names_the_port_that_stays_open() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let desk = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = desk.local_addr().unwrap().to_string().replace("127.0.0.1", "localhost");
    success(&mut server.munjigi(&[
        "target",
        "put",
        "desk",
        "--kind",
        "rdp",
        "--address",
        &address,
        "--through",
        "Role=bastion",
    ]));
    let file: PathBuf = server.directory().join("desk.rdp");
    let mut command = server.munjigi(&["rdp", "desk", "--user", "EXAMPLE\\alice", "--file", file.to_str().unwrap()]);
    let _running = Killed(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let text = wait_for("the file", || std::fs::read_to_string(&file).ok().filter(|text| text.contains("username:s:")));
    assert!(text.contains("username:s:EXAMPLE\\alice\r\n"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let at = text.lines().find_map(|line| line.strip_prefix("full address:s:")).unwrap();
    let mut near = std::net::TcpStream::connect(at).unwrap();
    let (mut far, _) = desk.accept().unwrap();
    near.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    std::io::Read::read_exact(&mut far, &mut heard).unwrap();
    assert_eq!(&heard, b"hello");

    success(&mut server.munjigi(&[
        "target",
        "put",
        "db",
        "--kind",
        "redis",
        "--address",
        "db:1",
        "--through",
        "hop-1",
    ]));
    let wrong = output(&mut server.munjigi(&["rdp", "db"]));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no desktop: use `munjigi forward db`"), "{wrong:?}");
}
