use std::os::fd::AsFd;

use munjigi_core::session::TerminalSize;
use munjigi_core::terminal_modes::TerminalModes;

use super::*;

fn session() -> SessionId {
    SessionId::parse("alice-0123456789abcdef0").unwrap()
}

fn to_spawn() -> Vec<ToSpawn> {
    let size = TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 };
    let start = Start {
        request: 9,
        grant: vec![1; 300],
        terminal: Some(Terminal { term: "xterm".into(), size, modes: TerminalModes::new([(3, 35), (53, 0)]) }),
        environment: vec![("LANG".into(), "ko_KR.UTF-8".into())],
    };
    vec![
        ToSpawn::Sign { request: 1, binding: [2; 32], hello: "abc".into() },
        ToSpawn::Start(start.clone()),
        ToSpawn::Start(Start { terminal: None, environment: vec![], ..start }),
        ToSpawn::Reach { request: 2, session: session(), endpoint: ":22".parse().unwrap(), grant: vec![4; 200] },
        ToSpawn::Signal { session: session(), signal: Signal::Interrupt },
        ToSpawn::End { session: session() },
        ToSpawn::Forget { session: session() },
        ToSpawn::InputEnd { session: session() },
        ToSpawn::Online,
        ToSpawn::Offline { why: "refused".into() },
        ToSpawn::Trust { bundle: vec![3; 100] },
        ToSpawn::Accounts { request: 9, recorded: 4, total: 300, piece: vec![8; 100] },
    ]
}

fn to_link() -> Vec<ToLink> {
    let described = Session {
        session: session(),
        request: Some(4),
        process_id: 77,
        os_user: "alice".into(),
        terminal: true,
        input: true,
        exit: None,
        detail: String::new(),
        endpoints: None,
    };
    let endpoints = ["db.internal:5432", "unix:/run/한글"].map(|text| text.parse().unwrap()).to_vec();
    let killed = ExitStatus::Signal { name: "KILL".into(), core_dumped: false };
    vec![
        ToLink::Configure(Configure {
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            name: "web-1".into(),
            epoch: [5; 32],
            server: "https://gate:8443".into(),
            ca: b"pem".to_vec(),
            only_user: "alice".into(),
            ssh_host_key: "ssh-ed25519 AAAA".into(),
            denied_destinations: vec!["10.0.0.0/8".into(), "*:25".into()],
            sessions: 2,
        }),
        ToLink::Signature { request: 1, signature: [6; 64] },
        ToLink::Session(described.clone()),
        ToLink::Session(Session { endpoints: Some(endpoints), ..described.clone() }),
        ToLink::Session(Session { request: None, exit: Some(ExitStatus::Code(-1)), ..described }),
        ToLink::Refused { request: 3, code: "AccessDenied".into(), message: "no".into(), reason: "r".into() },
        ToLink::Reached { request: 5 },
        ToLink::AccountsApplied { request: 6, report: vec![1; 50] },
        ToLink::AccountsChanged { report: vec![2; 50] },
        ToLink::AwsKey { report: vec![3; 50] },
        ToLink::Exited { session: session(), status: killed, detail: "why".into() },
    ]
}

#[test]
fn messages_round_trip() {
    for message in to_spawn() {
        assert_eq!(ToSpawn::decode(&message.encode()), Ok(message));
    }
    for message in to_link() {
        assert_eq!(ToLink::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn mutated_messages_never_panic_and_what_is_accepted_has_one_encoding() {
    let seeds: Vec<Vec<u8>> =
        to_spawn().iter().map(ToSpawn::encode).chain(to_link().iter().map(ToLink::encode)).collect();
    let mut state = 0x0dd0_1234_9999_8888_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut accepted = 0;
    for case in 0..(1_usize << 18) {
        let mut bytes = seeds[case % seeds.len()].clone();
        for _ in 0..=(next() % 3) {
            let at = next() as usize % bytes.len();
            match next() % 4 {
                0 => bytes[at] = next() as u8,
                1 => bytes[at] ^= 1 << (next() % 8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, next() as u8),
            }
        }
        if let Ok(message) = ToSpawn::decode(&bytes) {
            assert_eq!(message.encode(), bytes);
            accepted += 1;
        }
        if let Ok(message) = ToLink::decode(&bytes) {
            assert_eq!(message.encode(), bytes);
        }
    }
    assert!(accepted > 100);
}

#[test]
fn descriptors_travel_with_their_message_and_an_end_is_seen() {
    let (one, other) = Channel::pair().unwrap();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    one.send(b"first", &[writer.as_fd()]).unwrap();
    one.send(b"second", &[]).unwrap();
    drop(writer);
    let mut buffer = vec![0; MAX_MESSAGE];
    let (count, descriptors) = other.receive(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], descriptors.len()), (&b"first"[..], 1));
    nix::unistd::write(&descriptors[0], b"through").unwrap();
    let mut read = [0; 16];
    assert_eq!(nix::unistd::read(&reader, &mut read).unwrap(), 7);
    let (count, descriptors) = other.receive(&mut buffer).unwrap();
    assert_eq!((&buffer[..count], descriptors.len()), (&b"second"[..], 0));
    assert!(matches!(other.receive(&mut buffer), Err(ChannelError::NotReady)));
    assert!(matches!(one.send(&vec![0; MAX_MESSAGE + 1], &[]), Err(ChannelError::TooLarge)));
    drop(one);
    assert!(matches!(other.receive(&mut buffer), Err(ChannelError::Closed)));
}
