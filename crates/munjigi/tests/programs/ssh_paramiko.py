"""What people's scripts do with paramiko, against the SSH door; prints a line for each thing that worked.

`ssh_paramiko.py HOST PORT LOGIN KEY HOSTKEY ECHO_PORT DIRECTORY`: HOSTKEY is the line of known_hosts behind the
names, ECHO_PORT a port of the node that gives back what it gets, DIRECTORY one that the OS user on the node may write to.
"""

import hashlib
import os
import socket
import sys
import threading

import paramiko

LARGE = 3 << 20


def main():
    host, port, login, key, host_key, echo_port, directory = sys.argv[1:8]
    client = paramiko.SSHClient()
    kind, blob = host_key.split()[:2]
    entry = paramiko.hostkeys.HostKeyEntry.from_line(f"[{host}]:{port} {kind} {blob}")
    client.get_host_keys().add(f"[{host}]:{port}", kind, entry.key)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(host, int(port), login, pkey=paramiko.Ed25519Key.from_private_key_file(key), allow_agent=False,
                   look_for_keys=False, timeout=60, banner_timeout=60, auth_timeout=60, channel_timeout=60)

    _, out, err = client.exec_command("echo to-out; echo to-err >&2; exit 7", timeout=60)
    assert (out.read(), err.read()) == (b"to-out\n", b"to-err\n")
    assert out.channel.recv_exit_status() == 7
    print("exec", flush=True)

    large(client)
    terminal(client)
    many(client)
    forward(client, int(echo_port))
    again(client)
    sftp(client, directory)
    refused(host, int(port), login, entry.key)
    client.close()


def large(client):
    """Bytes both ways at once, with an end of input that the program sees."""
    into, out, _ = client.exec_command("cat", timeout=60)
    data = os.urandom(LARGE)

    def feed():
        into.write(data)
        into.channel.shutdown_write()

    feeding = threading.Thread(target=feed)
    feeding.start()
    assert out.read() == data
    feeding.join()
    assert out.channel.recv_exit_status() == 0
    print("stdin", flush=True)


def terminal(client):
    channel = client.invoke_shell(term="vt100", width=97, height=31)
    channel.settimeout(60)
    channel.send(b"PS1=; stty size; echo $TERM-is-the-ter''minal\n")
    seen = until(channel, b"vt100-is-the-terminal")
    assert b"31 97" in seen, seen
    channel.resize_pty(width=120, height=40)
    channel.send(b"stty size\n")
    until(channel, b"40 120")
    channel.send(b"exit 5\n")
    assert channel.recv_exit_status() == 5
    print("terminal", flush=True)


def until(channel, marker):
    seen = b""
    while marker not in seen:
        more = channel.recv(4096)
        assert more, seen
        seen += more
    return seen


def many(client):
    """Ten programs at once over one connection."""
    running = [client.exec_command(f"echo {number}", timeout=60)[1] for number in range(10)]
    assert [out.read() for out in running] == [f"{number}\n".encode() for number in range(10)]
    print("channels", flush=True)


def forward(client, echo_port):
    transport = client.get_transport()
    channel = transport.open_channel("direct-tcpip", ("127.0.0.1", echo_port), ("127.0.0.1", 0), timeout=60)
    channel.settimeout(60)
    channel.sendall(b"there and back")
    assert until(channel, b"back") == b"there and back"
    channel.close()
    try:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = unused.getsockname()[1]
        transport.open_channel("direct-tcpip", ("127.0.0.1", nobody), ("127.0.0.1", 0), timeout=60)
        raise AssertionError("a connection to a closed port")
    except paramiko.ChannelException as error:
        assert error.code == 2, error
    print("forward", flush=True)


def again(client):
    """New keys in the middle of a connection."""
    client.get_transport().renegotiate_keys()
    assert client.exec_command("echo same", timeout=60)[1].read() == b"same\n"
    client.get_transport().send_ignore()
    client.get_transport().global_request("keepalive@openssh.com", wait=True)
    print("rekey", flush=True)


def sftp(client, directory):
    files = client.open_sftp()
    files.get_channel().settimeout(60)
    here, data = f"{directory}/paramiko", os.urandom(LARGE)
    files.mkdir(here)
    with files.open(f"{here}/large", "wb") as file:
        file.set_pipelined(True)
        file.write(data)
    assert files.stat(f"{here}/large").st_size == LARGE
    files.rename(f"{here}/large", f"{here}/moved")
    files.chmod(f"{here}/moved", 0o640)
    files.symlink(f"{here}/moved", f"{here}/link")
    assert files.readlink(f"{here}/link") == f"{here}/moved"
    assert sorted(files.listdir(here)) == ["link", "moved"]
    with files.open(f"{here}/moved", "rb") as file:
        file.prefetch()
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(data).digest()
    assert files.stat(f"{here}/moved").st_mode & 0o777 == 0o640
    try:
        files.stat(f"{here}/none")
        raise AssertionError("a file that is not there")
    except FileNotFoundError:
        pass
    files.remove(f"{here}/link")
    files.remove(f"{here}/moved")
    files.rmdir(here)
    files.close()
    print("sftp", flush=True)


def refused(host, port, login, host_key):
    """Another key, and a password, let nobody in."""
    for how in ({"pkey": paramiko.RSAKey.generate(2048)}, {"password": "guess"}):
        client = paramiko.SSHClient()
        client.get_host_keys().add(f"[{host}]:{port}", host_key.get_name(), host_key)
        try:
            client.connect(host, port, login, allow_agent=False, look_for_keys=False, timeout=60, banner_timeout=60,
                           auth_timeout=60, **how)
            raise AssertionError("somebody else was let in")
        except paramiko.AuthenticationException:
            client.close()
    print("refused", flush=True)


main()
