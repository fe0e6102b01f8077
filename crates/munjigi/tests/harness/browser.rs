//! A real Chromium without a screen, driven over two pipes (the Chrome DevTools Protocol), with a profile of its own.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::LIMIT;
use super::{TestServer, success, wait_for};

const CHROMIUM: &str = "/usr/bin/chromium";

/// A browser with one page. Ends when it is dropped.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    page: Option<String>,
    last: u64,
    _directory: TempDir,
}

impl Browser {
    /// Starts a browser that believes this server's certificate; `None` if there is no Chromium here.
    #[expect(clippy::print_stderr, reason = "who runs the tests is told what is missing")]
    pub(crate) fn start(server: &TestServer) -> Option<Self> {
        if !Path::new(CHROMIUM).exists() {
            eprintln!("no {CHROMIUM}: run `scripts/deps test`");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("munjigi-browser-").tempdir().unwrap();
        let here = directory.path().display();
        let (to, from) = (directory.path().join("to"), directory.path().join("from"));
        success(Command::new("mkfifo").args([&to, &from]));
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<\"$0/to\" 4>\"$0/from\""]).arg(directory.path()).arg(CHROMIUM);
        command.args([
            "--headless=new",
            // As root there is no other way; the page is our own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--no-proxy-server",
            "--lang=en-US",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={here}/profile"));
        command.arg(format!("--ignore-certificate-errors-spki-list={}", public_key_hash(server)));
        command.arg("about:blank").env("HOME", directory.path()).env_remove("DISPLAY");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let to = OpenOptions::new().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let (messages, received) = sync_channel(1024);
        std::thread::spawn(move || {
            for message in from.split(0) {
                let Ok(message) = message else { return };
                if messages.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, to, from: received, page: None, last: 0, _directory: directory })
    }

    /// Opens a page.
    pub(crate) fn open(&mut self, url: &str) {
        let target = self.call("Target.createTarget", &json!({ "url": url }))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        self.page = Some(attached["sessionId"].as_str().unwrap().to_owned());
        let loaded =
            json!({ "expression": format!("document.readyState + location.href == 'complete' + {}", json!(url)) });
        // Until there is a page there is nothing to ask.
        wait_for("the page", || {
            let answer = self.try_call("Runtime.evaluate", &loaded).ok()?;
            (answer["result"]["value"] == true).then_some(())
        });
    }

    /// Returns what an expression is in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|said| panic!("{method}: {said}"))
    }

    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(page) = &self.page {
            message["sessionId"] = page.as_str().into();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let said = self.from.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("{method}: {error}"));
            if said["id"] == self.last {
                return said.get("error").cloned().map_or_else(|| Ok(said["result"].clone()), Err);
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is told to go and takes its own processes with it; one that does not is killed.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        for _ in 0..100 {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the SHA-256 of the key in the server's certificate, in base64, as Chromium wants to hear it.
fn public_key_hash(server: &TestServer) -> String {
    const HASH: &str = "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -pubkey -noout \
        | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64";
    success(Command::new("sh").args(["-c", HASH, &server.address().to_string()])).trim().to_owned()
}
