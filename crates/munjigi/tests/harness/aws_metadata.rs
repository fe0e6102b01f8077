//! AWS's side of EC2 Instance Connect: a metadata service of the test's own, with a signer, OCSP answers and signatures of the real
//! openssl.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::{python_tool, success};

/// The instance that the service says it serves.
pub(crate) const INSTANCE: &str = "i-0f6c1e2d3b4a59687";
const SIGNER: &str = "managed-ssh-signer.eu-central-1.amazonaws.com";

/// A metadata service. Stops when it is dropped.
pub(crate) struct AwsMetadata {
    directory: TempDir,
    service: Child,
    port: u16,
}

/// A pushed key; what is left out is as it should be.
pub(crate) struct Push<'a> {
    /// Line of the public key.
    pub(crate) key: &'a str,
    /// Seconds from now until its end.
    pub(crate) seconds: i64,
    /// The instance that it is for; without one the line is left out.
    pub(crate) instance: Option<&'a str>,
    /// Changed behind the signature.
    pub(crate) altered: bool,
}

impl<'a> Push<'a> {
    /// A good one.
    pub(crate) fn of(key: &'a str) -> Self {
        Self { key, seconds: 600, instance: Some(INSTANCE), altered: false }
    }
}

fn signer(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/aws_signer.sh"));
    command.arg(arguments[0]).arg(directory).args(&arguments[1..]);
    command
}

impl AwsMetadata {
    /// Makes a signer and starts the service; everything is as it should be, and no key is pushed.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("munjigi-aws-").tempdir().unwrap();
        let made = directory.path().join("signer");
        std::fs::create_dir(&made).unwrap();
        success(&mut signer(&["make", SIGNER, "2"], &made));
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/aws_metadata.py");
        let mut service = Command::new(python_tool("python3"))
            .arg(program)
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(service.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let metadata = Self { directory, service, port: line.trim().parse().unwrap() };
        metadata.put("instance-id", INSTANCE);
        metadata.put("placement/availability-zone", "eu-central-1b");
        metadata.put("services/domain", "amazonaws.com");
        metadata.chain("chain.pem");
        metadata.staple("signer.sha1", "signer-good");
        metadata.staple("authority.sha256", "authority-good");
        let board = metadata.path("sys/devices/virtual/dmi/id/board_asset_tag");
        std::fs::create_dir_all(board.parent().unwrap()).unwrap();
        std::fs::write(board, format!("{INSTANCE}\n")).unwrap();
        metadata
    }

    /// Returns lines of `agent.toml` that have an agent ask here.
    pub(crate) fn settings(&self) -> String {
        format!(
            "[instance_connect]\naws = true\nmetadata_url = 'http://127.0.0.1:{}'\ntrust_file = '{}'\nhardware = '{}'\n",
            self.port,
            self.path("signer/root.pem").display(),
            self.path("sys").display()
        )
    }

    /// Returns a path below the service's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Says something at a name.
    pub(crate) fn put(&self, name: &str, content: &str) {
        let path = self.path("tree").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Shows another chain of the signer.
    pub(crate) fn chain(&self, name: &str) {
        let chain = std::fs::read_to_string(self.path("signer").join(name)).unwrap();
        self.put("managed-ssh-keys/signer-cert", &chain);
    }

    /// Shows an OCSP answer under the name that a file holds.
    pub(crate) fn staple(&self, name: &str, answer: &str) {
        let name = std::fs::read_to_string(self.path("signer").join(name)).unwrap();
        let encoded = success(Command::new("base64").arg(self.path("signer").join(format!("{answer}.der"))));
        self.put(&format!("managed-ssh-keys/signer-ocsp/{name}"), &encoded);
    }

    /// Takes an OCSP answer away.
    pub(crate) fn remove_staple(&self, name: &str) {
        let name = std::fs::read_to_string(self.path("signer").join(name)).unwrap();
        std::fs::remove_file(self.path("tree/managed-ssh-keys/signer-ocsp").join(name)).unwrap();
    }

    /// Pushes keys for an account, as `send-ssh-public-key` does; those before are gone.
    pub(crate) fn push(&self, os_user: &str, pushes: &[Push<'_>]) {
        let blocks: Vec<String> = pushes.iter().map(|push| self.signed(push)).collect();
        self.put(&format!("managed-ssh-keys/active-keys/{os_user}"), &blocks.join("\n"));
    }

    fn signed(&self, push: &Push<'_>) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut block = format!("#Timestamp={}\n", i64::try_from(now).unwrap() + push.seconds);
        if let Some(instance) = push.instance {
            block += &format!("#Instance={instance}\n");
        }
        block +=
            "#Caller=arn:aws:iam::123456789012:user/lee\n#Request=6c0f0000-0000-4000-8000-000000000001\n#Later=yes\n";
        block += &format!("{}\n", push.key.trim());
        let mut command = signer(&["sign"], &self.path("signer"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(block.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let signed = String::from_utf8(output.stdout).unwrap();
        if push.altered { signed.replace("user/lee", "user/kim") } else { signed }
    }

    /// Returns the requests that came, and forgets them.
    pub(crate) fn requests(&self) -> Vec<String> {
        let requests = std::fs::read_to_string(self.path("requests")).unwrap_or_default();
        let _ = std::fs::remove_file(self.path("requests"));
        requests.lines().map(str::to_owned).collect()
    }
}

impl Drop for AwsMetadata {
    fn drop(&mut self) {
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}
