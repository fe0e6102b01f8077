//! The programs that people use over ssh, unchanged, on a node without an sshd: OpenSSH's, Ansible, git, Terraform's and
//! VS Code's ways, PuTTY, and the two libraries of Python. What each prints, sends and exits with is as over sshd.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::faults::user;
use crate::harness::ssh::TestSsh;
use crate::harness::{
    Terminal, TestAgent, TestServer, free_port, lasting, output, python_tool, success, wait_for, wait_until_runs,
};

/// A server, a node, and a person whose key is registered.
struct Stage {
    server: TestServer,
    _agent: TestAgent,
    ssh: TestSsh,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::start();
        let agent = server.agent("web-1");
        let ssh = TestSsh::of(&server);
        // What `munjigi ssh-config` prints, as a person puts it into a configuration, with that person's key.
        let mut printing = server.munjigi(&["ssh-config"]);
        ssh.configure(&mut printing);
        let config = format!(
            "{}Host *\n  User {}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  BatchMode yes\n  LogLevel ERROR\n\
             \x20 UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n\
             \x20 ConnectTimeout 60\n",
            success(&mut printing),
            user(),
            key = ssh.path("id").display(),
            known = ssh.path("munjigi/ssh/known_hosts").display(),
        );
        std::fs::write(ssh.path("config.peers"), config).unwrap();
        let key = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
        success(&mut server.aws(&[
            "iam",
            "upload-ssh-public-key",
            "--user-name",
            "admin",
            "--ssh-public-key-body",
            &key,
        ]));
        Self { server, _agent: agent, ssh }
    }

    /// Makes a directory that the OS user of sessions may write to.
    fn room(&self, name: &str) -> PathBuf {
        let room = self.server.directory().join(name);
        std::fs::create_dir(&room).unwrap();
        room
    }

    /// Returns the person's private key.
    fn key(&self) -> PathBuf {
        self.ssh.path("id")
    }

    /// Returns what OpenSSH's programs are told, for those who call them.
    fn options(&self) -> String {
        format!("-F {}", self.ssh.path("config.peers").display())
    }

    /// Builds a command of the person's; OpenSSH's programs have the configuration.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        if ["ssh", "scp", "sftp"].contains(&name) {
            command.arg("-F").arg(self.ssh.path("config.peers"));
        }
        self.ssh.configure(&mut command);
        command
    }

    /// Returns the server's host key as a line of known_hosts.
    fn host_key(&self) -> String {
        let port = self.server.address().port().to_string();
        success(Command::new("ssh-keyscan").args(["-t", "ed25519", "-p", &port, "127.0.0.1"])).trim().to_owned()
    }

    /// The ways to the node: through our client's link, through the door as a jump host, and with the node in the login's
    /// name.
    fn ways(&self) -> [Vec<String>; 3] {
        let user = user();
        [
            vec![format!("{user}@web-1.munjigi")],
            vec!["-J".to_owned(), "127.0.0.1".to_owned(), format!("{user}@web-1")],
            vec![format!("{user}%web-1@127.0.0.1")],
        ]
    }
}

/// Runs a command with this as its standard input.
fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let feeding = thread::spawn(move || {
        // A program that ends before it has read everything is no fault here.
        let _ = stdin.write_all(&input);
    });
    let ended = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    ended
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A service on a port of its own that gives back what it gets; returns the port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
        }
    });
    port
}

/// A process that is ended when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn openssh_runs_commands_on_every_way_with_status_streams_and_input_apart() {
    let stage = Stage::new();
    for way in stage.ways() {
        let ssh = |words: &[&str]| {
            let mut command = stage.program("ssh");
            command.args(&way).args(words);
            command
        };
        let ran = output(&mut ssh(&["echo to-out; echo to-err >&2; exit 7"]));
        assert_eq!(ran.status.code(), Some(7), "{way:?}: {ran:?}");
        assert_eq!((text(&ran.stdout), text(&ran.stderr)), ("to-out\n".to_owned(), "to-err\n".to_owned()), "{way:?}");
        // In the middle of a pipeline, bytes of every kind, both ways at once.
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let back = fed(ssh(&["cat; echo done >&2"]), &bytes);
        assert!(back.status.success() && back.stdout == bytes, "{way:?}: {} bytes came back", back.stdout.len());
        assert_eq!(text(&back.stderr), "done\n", "{way:?}");
        // Without a terminal, the login shell reads commands from standard input.
        let shell = fed(ssh(&["-T"]), b"echo $((6 * 7))\nexit 3\n");
        assert_eq!((text(&shell.stdout).trim_end(), shell.status.code()), ("42", Some(3)), "{way:?}: {shell:?}");
        // Quotes, blanks and lines go through as they are, to the user's own shell.
        let ran = success(&mut ssh(&["printf '<%s>' \"a  b\" 'c\nd' $0; x=y; echo \"$x\""]));
        assert!(ran.starts_with("<a  b><c\nd><") && ran.ends_with("y\n"), "{way:?}: {ran}");
        let ran = output(&mut ssh(&["kill -KILL $$"]));
        assert_eq!(ran.status.code(), Some(255), "{way:?}: {ran:?}");
    }
    let recorded = stage.server.sessions();
    assert_eq!(recorded.len(), 5 * stage.ways().len(), "{recorded:?}");
    success(&mut stage.server.munjigi(&["verify"]));
}

#[test]
fn openssh_has_a_terminal_with_its_size_keys_and_signals() {
    let stage = Stage::new();
    for way in stage.ways() {
        let mut command = stage.program("ssh");
        command.arg("-t").args(&way).arg("exec sh");
        let mut terminal = Terminal::run(&command, 37, 111);
        terminal.type_in("PS1='$ '; echo be''gin; stty size; echo $TERM\n");
        terminal.expect("begin");
        terminal.expect("37 111");
        terminal.expect("xterm-256color");
        terminal.resize(50, 132);
        wait_for("the new size", || {
            terminal.type_in("stty size\n");
            thread::sleep(std::time::Duration::from_millis(200));
            terminal.screen().contains("50 132").then_some(())
        });
        let sleep = lasting();
        terminal.type_in(&format!("echo 안녕''하세요; {sleep}\n"));
        terminal.expect("안녕하세요");
        wait_until_runs(&sleep);
        terminal.type_in("\u{3}");
        terminal.type_in("echo st''ill; exit 9\n");
        terminal.expect("still");
        assert_eq!(terminal.end(), Some(9), "{way:?}");
    }
    let newest = stage.server.sessions().remove(0);
    let played = success(&mut stage.server.munjigi(&["play", newest["id"].as_str().unwrap(), "--text"]));
    assert!(played.contains("안녕하세요") && played.contains("50 132"), "{played}");
}

#[test]
fn openssh_forwards_ports_and_shares_one_connection() {
    let stage = Stage::new();
    let (echo, web) = (echo(), Web::start());
    for (number, way) in stage.ways().into_iter().enumerate() {
        let (near, socks) = (free_port(), free_port());
        let master = stage.server.directory().join(format!("m{number}"));
        let mut command = stage.program("ssh");
        command.args(["-M", "-N", "-S"]).arg(&master).arg("-L").arg(format!("127.0.0.1:{near}:127.0.0.1:{echo}"));
        command.arg("-D").arg(format!("127.0.0.1:{socks}")).args(["-o", "ExitOnForwardFailure=yes"]).args(&way);
        let _standing = Ended(command.stdin(Stdio::null()).spawn().unwrap());
        wait_for("the shared connection", || master.exists().then_some(()));
        for _ in 0..20 {
            let mut socket = TcpStream::connect(("127.0.0.1", near)).unwrap();
            socket.write_all(b"there and back").unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = String::new();
            socket.read_to_string(&mut back).unwrap();
            assert_eq!(back, "there and back", "{way:?}");
        }
        let pages = success(&mut web.pages(&format!("socks5h://127.0.0.1:{socks}"), 30));
        assert_eq!(pages.matches("a page\n").count(), 30, "{way:?}: {pages}");
        // Programs over the same connection, at once.
        let running: Vec<_> = (0..20)
            .map(|number| {
                let mut command = stage.program("ssh");
                command.arg("-S").arg(&master).args(&way).arg(format!("echo {number}; exit {number}"));
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for (number, child) in running.into_iter().enumerate() {
            let ended = child.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), i32::try_from(number).ok(), "{way:?}: {ended:?}");
            assert_eq!(text(&ended.stdout), format!("{number}\n"), "{way:?}");
        }
        // One connection as standard input and output.
        let mut command = stage.program("ssh");
        command.arg("-S").arg(&master).arg("-W").arg(format!("127.0.0.1:{echo}")).args(&way);
        let through = fed(command, b"through");
        assert_eq!(text(&through.stdout), "through", "{way:?}: {through:?}");
    }
}

/// A small web server on a port of its own, as something that runs on the node.
struct Web {
    port: u16,
    _process: Ended,
}

impl Web {
    fn start() -> Self {
        let script = "import http.server, socketserver, sys\n\
            class Page(http.server.BaseHTTPRequestHandler):\n\
            \x20   def do_GET(self):\n\
            \x20       self.send_response(200); self.end_headers(); self.wfile.write(b'a page\\n')\n\
            \x20   def log_message(self, *_): pass\n\
            class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):\n\
            \x20   request_queue_size = 64\n\
            server = Server(('127.0.0.1', 0), Page); print(server.server_port, flush=True); server.serve_forever()\n";
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { port: line.trim().parse().unwrap(), _process: Ended(child) }
    }

    /// Builds a command that loads so many pages at once through a proxy.
    fn pages(&self, proxy: &str, count: usize) -> Command {
        let mut command = Command::new("curl");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.args(["-sS", "--max-time", "120", "--parallel", "--parallel-immediate", "--proxy", proxy]);
        command.arg(format!("http://127.0.0.1:{}/[1-{count}]", self.port));
        command
    }
}

#[test]
fn vs_code_reaches_the_server_that_its_script_starts() {
    let stage = Stage::new();
    let socks = free_port();
    // As Remote-SSH does it: a shell without a terminal, its script on standard input, and one SOCKS port for all else.
    let mut command = stage.program("ssh");
    command.args(["-v", "-T", "-D", &socks.to_string(), "-o", "ConnectTimeout=60"]).args(&stage.ways()[0]).arg("sh");
    let mut child = Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut script = child.0.stdin.take().unwrap();
    let mut said = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let web = Web::start();
    writeln!(script, "echo 'b1f0: running'; uname -s; echo \"listeningOn=={}==\"", web.port).unwrap();
    script.flush().unwrap();
    let lines: Vec<String> = said.by_ref().map_while(Result::ok).take(3).collect();
    assert_eq!(lines[..2], ["b1f0: running".to_owned(), "Linux".to_owned()], "{lines:?}");
    let port: u16 = lines[2].split("==").nth(1).unwrap().parse().unwrap();
    assert_eq!(port, web.port);
    // Its window, its file watchers and its terminals are connections of their own, and stay while others come.
    let proxy = format!("socks5://127.0.0.1:{socks}");
    for _ in 0..3 {
        let pages = success(&mut web.pages(&proxy, 40));
        assert_eq!(pages.matches("a page\n").count(), 40);
    }
    // The shell still answers, and ends with its input.
    writeln!(script, "echo still; exit 0").unwrap();
    drop(script);
    assert_eq!(said.next().unwrap().unwrap(), "still");
    let status = wait_for("the end of ssh", || child.0.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
}

#[test]
fn terraforms_provisioner_uploads_its_script_and_runs_it() {
    let stage = Stage::new();
    let room = stage.room("terraform");
    let far = room.join("terraform_1.sh");
    for way in stage.ways() {
        let ssh = |words: &[&str]| {
            let mut command = stage.program("ssh");
            command.arg("-T").args(&way).args(words);
            command
        };
        // Its communicator speaks the old protocol itself, over `scp -vt DIRECTORY`, and reads a byte for each word.
        let script = b"#!/bin/sh\necho \"provisioned by $1\"\nexit 4\n";
        let mut said = format!("C0644 {} terraform_1.sh\n", script.len()).into_bytes();
        said.extend_from_slice(script);
        said.push(0);
        let sent = fed(ssh(&[&format!("scp -vt {}", room.display())]), &said);
        assert!(sent.status.success(), "{way:?}: {sent:?}");
        assert_eq!(sent.stdout, [0, 0, 0], "{way:?}: {sent:?}");
        assert_eq!(std::fs::read(&far).unwrap(), script, "{way:?}");
        success(&mut ssh(&[&format!("chmod 0777 {}", far.display())]));
        let ran = output(&mut ssh(&[&format!("{} terraform", far.display())]));
        assert_eq!((text(&ran.stdout).as_str(), ran.status.code()), ("provisioned by terraform\n", Some(4)), "{way:?}");
        success(&mut ssh(&[&format!("rm -f {}", far.display())]));
        assert!(!far.exists());
    }
}

#[test]
fn openssh_copies_files_by_both_protocols_and_rsync() {
    let stage = Stage::new();
    let (near, far, back) = (stage.room("near"), stage.room("far"), stage.room("back"));
    tree(&near);
    let node = format!("{}@web-1.munjigi", user());
    let at = |path: &Path| format!("{node}:{}", path.display());
    let emptied = |room: &Path| {
        std::fs::remove_dir_all(room).unwrap();
        std::fs::create_dir(room).unwrap();
    };
    for old in [false, true] {
        let scp = |from: &str, to: &str| {
            let mut command = stage.program("scp");
            command.args(old.then_some("-O")).args(["-q", "-r", "-p", from, to]);
            success(&mut command)
        };
        scp(near.join("tree").to_str().unwrap(), &at(&far));
        scp(&at(&far.join("tree")), back.to_str().unwrap());
        same_tree(&near.join("tree"), &back.join("tree"));
        // One that is not there: told, and a status.
        let missing =
            output(stage.program("scp").args(old.then_some("-O")).args(["-q", &at(&far.join("none"))]).arg(&back));
        assert!(
            !missing.status.success() && text(&missing.stderr).to_lowercase().contains("no such file"),
            "{missing:?}"
        );
        emptied(&far);
        emptied(&back);
    }
    let batch = stage.server.directory().join("batch");
    let lines = format!(
        "put -Rp {near}/tree {far}\nrename {far}/tree/small {far}/tree/renamed\nls -l {far}/tree\nmkdir {far}/more\n\
         rmdir {far}/more\nget -R {far}/tree {back}\nrm {far}/tree/renamed\n",
        near = near.display(),
        far = far.display(),
        back = back.display()
    );
    std::fs::write(&batch, lines).unwrap();
    success(stage.program("sftp").arg("-b").arg(&batch).arg(&node));
    assert!(!far.join("tree/renamed").exists() && !far.join("more").exists());
    assert_eq!(std::fs::read(near.join("tree/small")).unwrap(), std::fs::read(back.join("tree/renamed")).unwrap());
    emptied(&far);
    emptied(&back);
    let rsync = |from: &str, to: &str| {
        let mut command = stage.program("rsync");
        let over = format!("ssh {}", stage.options());
        success(command.args(["-a", "--delete", "-e", &over, from, to]))
    };
    rsync(&format!("{}/tree", near.display()), &at(&far));
    std::fs::write(far.join("tree/stale"), "stale").unwrap();
    rsync(&format!("{}/tree", near.display()), &at(&far));
    rsync(&at(&far.join("tree")), back.to_str().unwrap());
    same_tree(&near.join("tree"), &back.join("tree"));
}

/// Makes directories, names and sizes of every kind.
fn tree(room: &Path) {
    let root = room.join("tree");
    std::fs::create_dir_all(root.join("sub/deep")).unwrap();
    std::fs::write(root.join("small"), "small\n").unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    std::fs::write(root.join("sub/이름 with blanks 'and' quotes"), "이름\n").unwrap();
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    std::fs::write(root.join("sub/deep/large"), large).unwrap();
}

fn same_tree(one: &Path, other: &Path) {
    success(Command::new("diff").arg("-r").arg(one).arg(other));
}

#[test]
fn git_clones_fetches_and_pushes() {
    let stage = Stage::new();
    let room = stage.room("git");
    let git = |directory: &Path, words: &[&str]| {
        let mut command = stage.program("git");
        command.current_dir(directory).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(words);
        // Nothing of the person's own git, and the node's git trusts this directory whoever owns it.
        command
            .env("GIT_SSH_COMMAND", format!("ssh {}", stage.options()))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    };
    success(&mut git(&room, &["init", "-q", "--bare", "-b", "main", "far.git"]));
    success(&mut git(&room, &["init", "-q", "-b", "main", "near"]));
    let near = room.join("near");
    for number in 0..30 {
        std::fs::write(near.join(format!("file-{number}")), format!("{number}\n").repeat(10_000)).unwrap();
    }
    success(&mut git(&near, &["add", "."]));
    success(&mut git(&near, &["commit", "-q", "-m", "many files"]));
    let url = format!("ssh://{}@web-1.munjigi{}", user(), room.join("far.git").display());
    success(&mut git(&near, &["push", "-q", &url, "main"]));
    success(&mut git(&room, &["clone", "-q", &url, "clone"]));
    same_tree(&near.join("file-7"), &room.join("clone/file-7"));
    std::fs::write(near.join("later"), "later\n").unwrap();
    success(&mut git(&near, &["add", "later"]));
    success(&mut git(&near, &["commit", "-q", "-m", "later"]));
    success(&mut git(&near, &["push", "-q", &url, "main"]));
    success(&mut git(&room.join("clone"), &["pull", "-q", "--ff-only"]));
    assert_eq!(std::fs::read(room.join("clone/later")).unwrap(), b"later\n");
    let missing = output(&mut git(&room, &["clone", "-q", &format!("{url}-none"), "none"]));
    assert!(text(&missing.stderr).contains("does not appear to be a git repository"), "{missing:?}");
}

#[test]
fn ansible_pings_copies_and_runs_a_playbook() {
    let ansible = python_tool("ansible");
    if !ansible.exists() {
        eprintln!("no ansible here: run `scripts/deps test`");
        return;
    }
    let stage = Stage::new();
    let room = stage.room("ansible");
    let write = |name: &str, text: &str| std::fs::write(room.join(name), text).unwrap();
    // As somebody has it who wrote `munjigi ssh-config` into ~/.ssh/config: the inventory names hosts, nothing more.
    let python = python_tool("python3");
    write("hosts", &format!("web-1.munjigi ansible_user={} ansible_python_interpreter={}\n", user(), python.display()));
    write("from", "what is copied\n");
    write(
        "play.yml",
        &format!(
            "- hosts: all\n  gather_facts: false\n  tasks:\n  - copy: {{src: from, dest: {room}/copied, mode: '0640'}}\n  \
             - command: cat {room}/copied\n    register: cat\n  - assert: {{that: cat.stdout == 'what is copied'}}\n  \
             - shell: 'exit 3'\n    register: failing\n    failed_when: failing.rc != 3\n  \
             - fetch: {{src: {room}/copied, dest: {room}/fetched, flat: true}}\n  \
             - file: {{path: {room}/copied, state: absent}}\n",
            room = room.display()
        ),
    );
    let run = |name: &str, pipelining: bool, words: &[&str]| {
        let mut command = stage.program(python_tool(name).to_str().unwrap());
        command.current_dir(&room).args(["-i", "hosts"]).args(words);
        command
            .env("ANSIBLE_HOME", room.join("home"))
            .env("ANSIBLE_REMOTE_TEMP", room.join("remote"))
            .env("ANSIBLE_SSH_COMMON_ARGS", stage.options())
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", room.join("cp"))
            .env("ANSIBLE_PIPELINING", if pipelining { "1" } else { "0" })
            .env("ANSIBLE_TIMEOUT", "60")
            .env("ANSIBLE_NOCOLOR", "1")
            .env("LC_ALL", "C.UTF-8");
        success(&mut command)
    };
    for pipelining in [false, true] {
        assert!(run("ansible", pipelining, &["all", "-m", "ping"]).contains("\"ping\": \"pong\""));
        let said = run("ansible", pipelining, &["all", "-m", "command", "-a", "echo from the node"]);
        assert!(said.contains("CHANGED") && said.contains("from the node"), "{said}");
        let to = format!("src=from dest={}/once", room.display());
        run("ansible", pipelining, &["all", "-m", "copy", "-a", &to]);
        assert_eq!(std::fs::read(room.join("once")).unwrap(), b"what is copied\n");
        std::fs::remove_file(room.join("once")).unwrap();
    }
    let played = run("ansible-playbook", false, &["play.yml"]);
    assert!(played.contains("failed=0") && played.contains("ok=6"), "{played}");
    assert_eq!(std::fs::read(room.join("fetched")).unwrap(), b"what is copied\n");
    assert!(!room.join("copied").exists());
    // The connections that Ansible shares stay for a minute; nothing of a test does.
    for master in std::fs::read_dir(room.join("cp")).unwrap() {
        let mut command = stage.program("ssh");
        success(command.args(["-q", "-O", "exit", "-S"]).arg(master.unwrap().path()).arg("web-1.munjigi"));
    }
}

#[test]
fn putty_runs_commands_and_copies_files() {
    if !Path::new("/usr/bin/plink").exists() {
        eprintln!("no plink here: run `scripts/deps test`");
        return;
    }
    let stage = Stage::new();
    let room = stage.room("putty");
    let key = stage.server.directory().join("key.ppk");
    success(Command::new("puttygen").arg(stage.key()).args(["-O", "private", "-o"]).arg(&key));
    let port = stage.server.address().port().to_string();
    let login = format!("{}%web-1@127.0.0.1", user());
    let known = stage.server.directory().join("known");
    std::fs::write(&known, stage.host_key()).unwrap();
    let shown = success(Command::new("ssh-keygen").arg("-lf").arg(&known));
    let fingerprint = shown.split(' ').nth(1).unwrap();
    let putty = |name: &str| {
        let mut command = stage.program(name);
        // Its own settings and seeds lie in the home directory.
        command.env("HOME", &room).args(["-batch", "-P", &port, "-hostkey", fingerprint, "-i"]);
        command.arg(&key);
        command
    };
    let ran = output(putty("plink").args([&login, "echo to-out; echo to-err >&2; exit 7"]));
    assert_eq!((text(&ran.stdout), text(&ran.stderr)), ("to-out\n".to_owned(), "to-err\n".to_owned()), "{ran:?}");
    assert_eq!(ran.status.code(), Some(7));
    let mut command = putty("plink");
    command.args([&login, "cat"]);
    let bytes = vec![b'x'; 1_000_000];
    assert!(fed(command, &bytes).stdout == bytes);
    let mut terminal = Terminal::run(putty("plink").args(["-t", &login, "exec sh"]), 24, 80);
    terminal.type_in("PS1=; echo be''gin; tty; exit 3\n");
    terminal.expect("begin");
    terminal.expect("/dev/pts/");
    assert_eq!(terminal.end(), Some(3));
    tree(&room);
    let far = format!("{login}:{}/far", room.display());
    for protocol in ["-sftp", "-scp"] {
        std::fs::create_dir(room.join("far")).unwrap();
        success(putty("pscp").args([protocol, "-q", "-r"]).arg(room.join("tree")).arg(&far));
        success(putty("pscp").args([protocol, "-q", "-r", &format!("{far}/tree")]).arg(room.join("back")));
        same_tree(&room.join("tree"), &room.join("back"));
        std::fs::remove_dir_all(room.join("far")).unwrap();
        std::fs::remove_dir_all(room.join("back")).unwrap();
    }
}

/// Runs a program of Python in its virtual environment, and returns what it said worked; `None` without its module.
fn python(stage: &Stage, name: &str, module: &str, words: &[&str]) -> Option<String> {
    let python = python_tool("python3");
    if !output(Command::new(&python).args(["-c", &format!("import {module}")])).status.success() {
        return None;
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name);
    Some(success(stage.program(python.to_str().unwrap()).arg("-B").arg(program).args(words)))
}

#[test]
fn paramiko_does_all_that_scripts_do() {
    let stage = Stage::new();
    let (port, login) = (stage.server.address().port().to_string(), format!("{}%web-1", user()));
    let (key, echo, room) = (stage.key(), echo().to_string(), stage.room("paramiko"));
    let line = stage.host_key();
    let (_, host_key) = line.split_once(' ').unwrap();
    let words = ["127.0.0.1", &port, &login, key.to_str().unwrap(), host_key, &echo, room.to_str().unwrap()];
    match python(&stage, "ssh_paramiko.py", "paramiko", &words) {
        Some(said) => assert_eq!(said, "exec\nstdin\nterminal\nchannels\nforward\nrekey\nsftp\nrefused\n"),
        None => eprintln!("no paramiko here: run `scripts/deps test`"),
    }
}

#[test]
fn asyncssh_does_all_that_scripts_do() {
    let stage = Stage::new();
    let (port, login) = (stage.server.address().port().to_string(), format!("{}%web-1", user()));
    let (key, echo, room) = (stage.key(), echo().to_string(), stage.room("asyncssh"));
    let known = stage.server.directory().join("known");
    std::fs::write(&known, stage.host_key()).unwrap();
    let words =
        ["127.0.0.1", &port, &login, key.to_str().unwrap(), known.to_str().unwrap(), &echo, room.to_str().unwrap()];
    match python(&stage, "ssh_asyncssh.py", "asyncssh", &words) {
        Some(said) => assert_eq!(said, "exec\nsignal\nenvironment\nstdin\nterminal\nforward\nlistener\nsftp\nscp\n"),
        None => eprintln!("no asyncssh here: run `scripts/deps test`"),
    }
}
