//! A client of SFTP over the real `ssh`, packet by packet.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use munjigi_core::sftp::{Attributes, OpenFlags, Request, Response, Status, packet_length};

use super::Files;
use crate::harness::ssh::end;

/// An SFTP client that asks one thing at a time.
pub(super) struct Client {
    child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    id: u32,
}

impl Client {
    pub(super) fn new(files: &Files) -> Self {
        let mut command = files.program("ssh", &["-s", "web-1.munjigi", "sftp"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut client = Self { child, input, output, id: 0 };
        let mut init = Vec::new();
        Request::encode_init(&mut init);
        client.input.write_all(&init).unwrap();
        assert_eq!(Response::decode_version(&client.packet()), Ok(3));
        client
    }

    pub(super) fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 4];
        self.output.read_exact(&mut packet).unwrap();
        let length = packet_length(&packet).unwrap().unwrap();
        packet.resize(length, 0);
        self.output.read_exact(&mut packet[4..]).unwrap();
        packet
    }

    pub(super) fn ask(&mut self, request: Request<'_>) -> Vec<u8> {
        self.id += 1;
        let mut packet = Vec::new();
        request.encode(self.id, &mut packet);
        self.input.write_all(&packet).unwrap();
        let answer = self.packet();
        assert_eq!(Response::decode(&answer).unwrap().0, self.id);
        answer
    }

    pub(super) fn status(&mut self, request: Request<'_>) -> Status {
        match Response::decode(&self.ask(request)).unwrap().1 {
            Response::Status { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn open(&mut self, path: &[u8], flags: OpenFlags) -> Option<u32> {
        let attributes = Attributes::default();
        match Response::decode(&self.ask(Request::Open { path, flags, attributes })).unwrap().1 {
            Response::Handle { handle } => Some(handle),
            _ => None,
        }
    }

    pub(super) fn end(mut self) {
        drop(self.input);
        assert!(end(&mut self.child, "ssh -s sftp").success());
    }
}
