//! The SSH door, with OpenSSH's own client.

use crate::harness::{TestServer, TestSsh};

#[test]
fn commands_run_by_the_login_shell_with_their_streams_and_exit_codes() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let ran = ssh.ssh(&["web-1.munjigi", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(7), "out\n", "err\n"));
    // Words are joined by one blank and read by a shell, as with sshd.
    assert_eq!(ssh.ssh(&["web-1.munjigi", "printf", "%s-", "a  b", "'c  d'", "한글"]).success(), "a-b-c  d-한글-");
    let ran = ssh.ssh_with(&["web-1.munjigi", "wc -c; cat /dev/null"], &vec![b'x'; 3_000_000]);
    assert_eq!(ran.success().trim(), "3000000");
    assert_eq!(ssh.ssh(&["web-1.munjigi", "head -c 3000000 /dev/zero"]).success().len(), 3_000_000);
    let killed = ssh.ssh(&["web-1.munjigi", "kill -TERM $$"]);
    assert_eq!(killed.code, Some(255), "as with sshd, ssh exits with 255 for a signal: {killed:?}");
    assert_eq!(
        ssh.ssh(&["web-1.munjigi", "test -z \"$SSH_ORIGINAL_COMMAND\" && echo $LANG; test -n \"$SSH_CONNECTION\""])
            .success(),
        "C.UTF-8\n"
    );
    let unknown = ssh.ssh(&["web-2.munjigi", "true"]);
    assert_eq!(unknown.code, Some(255));
    assert!(unknown.err.contains("web-2 is not connected"), "{unknown:?}");
}
