//! A random script of a thousand operations, a model of what they do, and the trail: they must agree, in every step and at the
//! end.

use std::collections::BTreeMap;

use munjigi_core::sftp::{Attributes, OpenFlags, Request, Response, Status};

use super::client::Client;
use super::{Files, sha256};
use crate::harness::wait_for;

const OPERATIONS: usize = 1000;

/// What stands under a name: a directory, or a file with its content. Files have one name each.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Directory,
    File(Vec<u8>),
}

/// What the trail must tell: name, path, what was done or the hash, and whether it was.
type Told = (String, String, String, bool);

struct Script {
    root: String,
    nodes: BTreeMap<String, Node>,
    told: Vec<Told>,
    state: u64,
}

impl Script {
    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % below
    }

    /// A path at most three deep, of few names, so that things meet.
    fn path(&mut self) -> String {
        let names = ["가", "b", "c d"];
        let depth = 1 + self.random(3);
        (0..depth).map(|_| format!("/{}", names[self.random(3)])).collect()
    }

    fn parent_is_directory(&self, path: &str) -> bool {
        let parent = path.rsplit_once('/').unwrap().0;
        parent.is_empty() || self.nodes.get(parent) == Some(&Node::Directory)
    }

    fn has_children(&self, path: &str) -> bool {
        self.nodes.keys().any(|other| other.starts_with(&format!("{path}/")))
    }

    fn tell(&mut self, name: &str, path: &str, what: &str, good: bool) {
        self.told.push((name.to_owned(), format!("{}{path}", self.root), what.to_owned(), good));
    }

    /// Whether the worker can say where a path leads: what cannot be resolved was neither judged nor done.
    fn leads_somewhere(&self, path: &str) -> bool {
        self.parent_is_directory(path)
    }

    fn step(&mut self, client: &mut Client) {
        let path = self.path();
        let full = format!("{}{path}", self.root).into_bytes();
        let full = full.as_slice();
        match self.random(8) {
            0 | 1 => self.write(client, &path, full),
            2 => self.read(client, &path, full),
            3 => {
                let good = self.leads_somewhere(&path) && !self.nodes.contains_key(&path);
                let status = client.status(Request::Mkdir { path: full, attributes: Attributes::default() });
                assert_eq!(status == Status::Ok, good, "mkdir {path}");
                if self.leads_somewhere(&path) {
                    self.tell("ChangeFile", &path, "makeDirectory", good);
                }
                if good {
                    self.nodes.insert(path, Node::Directory);
                }
            }
            4 => {
                let good = matches!(self.nodes.get(&path), Some(Node::File(_)));
                assert_eq!(client.status(Request::Remove { path: full }) == Status::Ok, good, "rm {path}");
                if self.leads_somewhere(&path) {
                    self.tell("ChangeFile", &path, "remove", good);
                }
                if good {
                    self.nodes.remove(&path);
                }
            }
            5 => {
                let good = self.nodes.get(&path) == Some(&Node::Directory) && !self.has_children(&path);
                assert_eq!(client.status(Request::Rmdir { path: full }) == Status::Ok, good, "rmdir {path}");
                if self.leads_somewhere(&path) {
                    self.tell("ChangeFile", &path, "removeDirectory", good);
                }
                if good {
                    self.nodes.remove(&path);
                }
            }
            6 => self.rename(client, &path, full),
            _ => {
                let size = self.random(50) as u64;
                let attributes = Attributes { size: Some(size), ..Attributes::default() };
                let good = matches!(self.nodes.get(&path), Some(Node::File(_)));
                let status = client.status(Request::Setstat { path: full, attributes });
                assert_eq!(status == Status::Ok, good, "truncate {path}");
                if self.leads_somewhere(&path) {
                    self.tell("ChangeFile", &path, "setAttributes", good);
                }
                if let Some(Node::File(content)) = self.nodes.get_mut(&path) {
                    content.resize(size as usize, 0);
                }
            }
        }
    }

    fn write(&mut self, client: &mut Client, path: &str, full: &[u8]) {
        let good = self.leads_somewhere(path) && self.nodes.get(path) != Some(&Node::Directory);
        let handle = client.open(full, OpenFlags::TO_REPLACE);
        assert_eq!(handle.is_some(), good, "open {path}");
        let Some(handle) = handle else {
            if self.leads_somewhere(path) {
                self.tell("UploadFile", path, "", false);
            }
            return;
        };
        let length = self.random(300);
        let content: Vec<u8> = (0..length).map(|_| self.random(256) as u8).collect();
        // In one piece, in order, or from behind.
        let cut = length / 2;
        let pieces = match self.random(3) {
            0 => vec![(0, &content[..])],
            1 => vec![(0, &content[..cut]), (cut, &content[cut..])],
            _ => vec![(cut, &content[cut..]), (0, &content[..cut])],
        };
        let in_order = pieces[0].0 == 0;
        for (offset, data) in pieces {
            let write = Request::Write { handle, offset: offset as u64, data };
            assert_eq!(client.status(write), Status::Ok);
        }
        assert_eq!(client.status(Request::Close { handle }), Status::Ok);
        let told = if in_order { sha256(&content) } else { format!("0-{length}") };
        self.tell("UploadFile", path, &told, true);
        self.nodes.insert(path.to_owned(), Node::File(content));
    }

    fn read(&mut self, client: &mut Client, path: &str, full: &[u8]) {
        let content = match self.nodes.get(path) {
            Some(Node::File(content)) => Some(content.clone()),
            _ => None,
        };
        let handle = client.open(full, OpenFlags::TO_READ);
        assert_eq!(handle.is_some(), content.is_some(), "read {path}");
        let (Some(handle), Some(content)) = (handle, content) else {
            if self.leads_somewhere(path) {
                self.tell("DownloadFile", path, "", false);
            }
            return;
        };
        let begin = if self.random(2) == 0 { 0 } else { content.len() / 2 };
        let read = Request::Read { handle, offset: begin as u64, length: 32_768 };
        match Response::decode(&client.ask(read)).unwrap().1 {
            Response::Data { data } => assert_eq!(data, &content[begin..], "{path}"),
            Response::Status { status, .. } => assert!(status == Status::Eof && begin == content.len(), "{path}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.status(Request::Close { handle }), Status::Ok);
        if begin == 0 {
            self.tell("DownloadFile", path, &sha256(&content), true);
        } else {
            self.tell("DownloadFile", path, &format!("{begin}-{}", content.len()), true);
        }
    }

    fn rename(&mut self, client: &mut Client, from: &str, full: &[u8]) {
        let to = self.path();
        let full_to = format!("{}{to}", self.root).into_bytes();
        let inside = to.starts_with(&format!("{from}/"));
        let good = self.nodes.contains_key(from)
            && self.parent_is_directory(&to)
            && !self.nodes.contains_key(&to)
            && !inside
            && from != to;
        let status = client.status(Request::Rename { from: full, to: &full_to });
        assert_eq!(status == Status::Ok, good, "rename {from} {to}");
        if self.leads_somewhere(from) && self.leads_somewhere(&to) {
            self.tell("ChangeFile", from, "rename", good);
        }
        if good {
            let moved: Vec<_> = self
                .nodes
                .keys()
                .filter(|path| *path == from || path.starts_with(&format!("{from}/")))
                .cloned()
                .collect();
            for path in moved {
                let node = self.nodes.remove(&path).unwrap();
                self.nodes.insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
    }
}

#[test]
fn a_thousand_random_operations_are_told_as_they_happened() {
    let files = Files::start();
    let root = files.there("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mut script = Script { root: root.clone(), nodes: BTreeMap::new(), told: Vec::new(), state: 0x5eed };
    let mut client = Client::new(&files);
    for _ in 0..OPERATIONS {
        script.step(&mut client);
    }
    client.end();
    // What is there is what the model says.
    let mut found = BTreeMap::new();
    let mut left = vec![std::path::PathBuf::from(&root)];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_str().unwrap()[root.len()..].to_owned();
            if path.is_dir() {
                found.insert(name, Node::Directory);
                left.push(path);
            } else {
                found.insert(name, Node::File(std::fs::read(path).unwrap()));
            }
        }
    }
    assert_eq!(found, script.nodes);
    for name in ["UploadFile", "DownloadFile", "ChangeFile"] {
        let expected: Vec<_> = script.told.iter().filter(|told| told.0 == name).cloned().collect();
        let told = wait_for(name, || Some(told(&files, name)).filter(|told| told.len() >= expected.len()));
        for (index, (told, expected)) in told.iter().zip(&expected).enumerate() {
            assert_eq!(told, expected, "number {index} of {name}");
        }
        assert_eq!(told.len(), expected.len());
    }
}

fn told(files: &Files, name: &str) -> Vec<Told> {
    let told = |event: serde_json::Value| {
        let about = &event["additionalEventData"];
        let text = |member: &str| about[member].as_str().map(str::to_owned);
        let good = event["errorCode"].is_null();
        let what = text("action").or_else(|| text("sha256")).or_else(|| text("parts"));
        (name.to_owned(), text("path").unwrap(), what.unwrap_or_default(), good)
    };
    files.events(name).into_iter().map(told).collect()
}
