//! Forward sessions through a real server and a real agent: what policy lets them reach, what each refusal says, and
//! what the trail tells of it.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::harness::TestServer;
use crate::harness::link::TestLink;

/// Longest wait for a whole test.
const LONG: Duration = Duration::from_secs(360);

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LONG, future).await.unwrap() })
}

/// Listens, and says `word` to whoever asks.
async fn says(word: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let asked = socket.read_u8().await;
                drop(socket.write_all(word.as_bytes()).await);
                asked
            });
        }
    });
    port
}

async fn heard(link: &TestLink, session: &str, to: &str) -> Result<String, String> {
    match link.reach(session, to).await {
        Ok((mut stream, _)) => {
            stream.write_u8(b'?').await.unwrap();
            stream.flush().await.unwrap();
            let mut word = String::new();
            stream.read_to_string(&mut word).await.unwrap();
            Ok(word)
        }
        Err(refused) => Err(refused.code),
    }
}

#[test]
fn a_session_reaches_the_endpoints_that_it_was_started_for_and_a_dynamic_one_others_too() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let (one, two, other) = (says("one").await, says("two").await, says("other").await);
        let link = TestLink::dial(&server).await;
        let (one, two, other) = (format!(":{one}"), format!("127.0.0.1:{two}"), format!("localhost:{other}"));
        let fixed = link.forward("web-1", &[&one, &two], false).await.unwrap();
        assert_eq!(heard(&link, &fixed.id, &one).await.unwrap(), "one");
        assert_eq!(heard(&link, &fixed.id, &two).await.unwrap(), "two");
        assert_eq!(heard(&link, &fixed.id, &other).await.unwrap_err(), "AccessDeniedException");
        // Which of the two is not said.
        assert_eq!(link.connect(&fixed.id).await.unwrap_err().code, "ValidationException");
        for dynamic in [link.forward("web-1", &[&one], true).await, link.forward("web-1", &[], true).await] {
            let dynamic = dynamic.unwrap();
            for (endpoint, word) in [(&one, "one"), (&other, "other"), (&two, "two"), (&other, "other")] {
                assert_eq!(heard(&link, &dynamic.id, endpoint).await.unwrap(), word);
            }
            assert_eq!(dynamic.end().await.reason, "terminated");
        }
        let refused = link.forward("web-1", &[], false).await.map(|session| session.id).unwrap_err();
        assert_eq!(refused.code, "ValidationException");
        fixed.end().await;
    });
}
