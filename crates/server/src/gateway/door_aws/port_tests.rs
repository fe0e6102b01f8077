//! The three ways of carrying bytes, against a client played by hand and destinations in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use munjigi_core::wire::aws::smux::{Mux, MuxEvent, MuxLimits, Read, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;

use super::data_channel::{DataChannel, Outgoing, PumpEnd};
use super::port::Finish;
use super::{port_basic, port_mux, port_stdio};
use crate::gateway::ports::PortError;

const LONG: Duration = Duration::from_secs(60);

/// Answers with what it hears, until its end.
fn echo() -> DuplexStream {
    let (near, far) = duplex(1000);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(far);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    near
}

fn refused() -> PortError {
    PortError::Refused { code: "ConnectionRefused".into(), message: "nobody listens".into() }
}

/// A client with smux.
struct Client {
    mux: Mux,
    pump: PumpEnd,
    flags: usize,
}

impl Client {
    /// Exchanges bytes until `done`.
    async fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        timeout(LONG, async {
            while !done(self) {
                while let Some(bytes) = self.mux.next_output(1024) {
                    self.pump.to_kind.send((PayloadType::Output, bytes)).await.unwrap();
                }
                tokio::select! {
                    outgoing = self.pump.from_kind.recv() => match outgoing.unwrap() {
                        Outgoing::Payload(PayloadType::Output, bytes) => self.mux.receive(bytes).unwrap(),
                        Outgoing::Payload(PayloadType::Flag, flag) => {
                            assert_eq!(Flag::parse(&flag), Some(Flag::ConnectToPortError));
                            self.flags += 1;
                        }
                        other => panic!("{other:?}"),
                    },
                    () = tokio::time::sleep(Duration::from_millis(1)) => {}
                }
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn streams_carry_their_own_bytes_and_end_one_by_one() {
    let (mut channel, pump) = DataChannel::new();
    let served = tokio::spawn(async move { port_mux::carry(&mut channel, || async { Ok(echo()) }, None).await });
    let mut client = Client { mux: Mux::new(Side::Client, MuxLimits::default()), pump, flags: 0 };
    let ids: Vec<u32> = (0..8).map(|_| client.mux.open().unwrap()).collect();
    let sent: Vec<Vec<u8>> =
        (0..8_u32).map(|seed| (0..100_000_u32).map(|at| (at.wrapping_mul(seed + 7) >> 3) as u8).collect()).collect();
    for (id, bytes) in ids.iter().zip(&sent) {
        client.mux.write(*id, Bytes::from(bytes.clone())).unwrap();
    }
    let mut heard = vec![Vec::new(); 8];
    client
        .until(|client| {
            for (id, heard) in ids.iter().zip(&mut heard) {
                while let Read::Data(bytes) = client.mux.read(*id) {
                    heard.extend_from_slice(&bytes);
                }
            }
            heard.iter().all(|heard| heard.len() >= 100_000)
        })
        .await;
    assert!(heard == sent);
    for id in &ids {
        client.mux.close(*id);
    }
    client.until(|client| client.mux.streams() == 0).await;
    client.pump.to_kind.send((PayloadType::Flag, Flag::TerminateSession.bytes())).await.unwrap();
    assert_eq!(timeout(LONG, served).await.unwrap().unwrap(), Finish::Terminated);
}

#[tokio::test]
async fn a_refused_connection_is_flagged_and_closed_and_the_others_live() {
    let (mut channel, pump) = DataChannel::new();
    let count = Arc::new(AtomicUsize::new(0));
    let served = tokio::spawn(async move {
        let connect = || {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err(refused()) } else { Ok(echo()) } }
        };
        port_mux::carry(&mut channel, connect, None).await
    });
    let mut client = Client { mux: Mux::new(Side::Client, MuxLimits::default()), pump, flags: 0 };
    let bad = client.mux.open().unwrap();
    client.until(|client| client.flags == 1 && client.mux.read(bad) == Read::End).await;
    let good = client.mux.open().unwrap();
    client.mux.write(good, Bytes::from_static(b"hello")).unwrap();
    client.until(|client| client.mux.read(good) == Read::Data(Bytes::from_static(b"hello"))).await;
    drop(client);
    assert_eq!(timeout(LONG, served).await.unwrap().unwrap(), Finish::Gone);
}

#[tokio::test]
async fn a_destination_that_ends_is_heard_to_its_last_byte() {
    let (mut channel, pump) = DataChannel::new();
    let served = tokio::spawn(async move {
        let connect = || async {
            let (near, mut far) = duplex(100);
            tokio::spawn(async move { far.write_all(&[7; 300_000]).await });
            Ok(near)
        };
        port_mux::carry(&mut channel, connect, None).await
    });
    let mut client = Client { mux: Mux::new(Side::Client, MuxLimits::default()), pump, flags: 0 };
    let id = client.mux.open().unwrap();
    let mut heard = 0;
    client
        .until(|client| {
            while client.mux.next_event().is_some_and(|event| event != MuxEvent::Writable(0)) {}
            loop {
                match client.mux.read(id) {
                    Read::Data(bytes) => heard += bytes.len(),
                    Read::Nothing => return false,
                    Read::End => return true,
                }
            }
        })
        .await;
    assert_eq!(heard, 300_000);
    served.abort();
}

#[tokio::test]
async fn a_client_that_breaks_smux_ends_its_session_with_the_reason() {
    let (mut channel, pump) = DataChannel::new();
    pump.to_kind.send((PayloadType::Output, Bytes::from_static(&[9; 8]))).await.unwrap();
    let finish = port_mux::carry(&mut channel, || async { Ok(echo()) }, None).await;
    assert!(matches!(finish, Finish::Broken(why) if why.contains("version 9")));
}

#[tokio::test]
async fn old_clients_hear_something_all_the_time() {
    let (mut channel, mut pump) = DataChannel::new();
    let served = tokio::spawn(async move {
        port_mux::carry(&mut channel, || async { Ok(echo()) }, Some(Duration::from_millis(1))).await
    });
    // Frames without data and without a stream: NOP. Two that are due at once come in one message.
    let heard = said(&mut pump, 24).await;
    assert!(heard.chunks(8).all(|frame| frame == [1, 3, 0, 0, 0, 0, 0, 0]), "{heard:?}");
    served.abort();
}

async fn said(pump: &mut PumpEnd, length: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < length {
        match timeout(LONG, pump.from_kind.recv()).await.unwrap().unwrap() {
            Outgoing::Payload(PayloadType::Output, bytes) => heard.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    heard
}

#[tokio::test]
async fn standard_input_and_output_are_one_connection_and_its_end_is_the_sessions() {
    let (mut channel, mut pump) = DataChannel::new();
    let (near, mut far) = duplex(64);
    let near = std::sync::Mutex::new(Some(near));
    let served = tokio::spawn(async move {
        let connect = || std::future::ready(near.lock().unwrap().take().ok_or_else(refused));
        port_stdio::carry(&mut channel, connect).await
    });
    far.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    assert_eq!(said(&mut pump, 11).await, b"SSH-2.0-x\r\n");
    pump.to_kind.send((PayloadType::Output, Bytes::from_static(b"SSH-2.0-y\r\n"))).await.unwrap();
    let mut heard = [0; 11];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"SSH-2.0-y\r\n");
    drop(far);
    assert_eq!(timeout(LONG, served).await.unwrap().unwrap(), Finish::Completed);
}

#[tokio::test]
async fn a_refused_only_connection_ends_the_session_with_its_reason() {
    let (mut channel, _pump) = DataChannel::new();
    let finish = port_stdio::carry(&mut channel, || async { Err::<DuplexStream, _>(refused()) }).await;
    assert_eq!(finish, Finish::Broken("nobody listens".into()));
}

#[tokio::test]
async fn the_basic_way_makes_each_connection_with_its_first_bytes() {
    let (mut channel, mut pump) = DataChannel::new();
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let served = tokio::spawn(async move {
        let connect = || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok(echo()) }
        };
        port_basic::carry(&mut channel, connect).await
    });
    for round in 1..=3 {
        pump.to_kind.send((PayloadType::Output, Bytes::from_static(b"hello"))).await.unwrap();
        assert_eq!(said(&mut pump, 5).await, b"hello");
        assert_eq!(made.load(Ordering::Relaxed), round);
        pump.to_kind.send((PayloadType::Flag, Flag::DisconnectToPort.bytes())).await.unwrap();
    }
    pump.to_kind.send((PayloadType::Flag, Flag::TerminateSession.bytes())).await.unwrap();
    assert_eq!(timeout(LONG, served).await.unwrap().unwrap(), Finish::Terminated);
}
