"""What people's scripts do with asyncssh, against the SSH door; prints a line for each thing that worked.

`ssh_asyncssh.py HOST PORT LOGIN KEY KNOWN_HOSTS ECHO_PORT DIRECTORY`: KNOWN_HOSTS is a file, in which an authority
for hosts may stand; beside KEY there may be a certificate (`KEY-cert.pub`), ECHO_PORT is a port of the node that gives back
what it gets, DIRECTORY one that the node's OS user may write to.
"""

import asyncio
import os
import sys

import asyncssh

LARGE = 3 << 20
LIMIT = 60


async def main():
    host, port, login, key, known_hosts, echo_port, directory = sys.argv[1:8]
    options = asyncssh.SSHClientConnectionOptions(username=login, client_keys=[key], known_hosts=known_hosts,
                                                  agent_path=None, config=None, login_timeout=LIMIT,
                                                  connect_timeout=LIMIT)
    async with asyncssh.connect(host, int(port), options=options) as connection:
        ran = await connection.run("echo to-out; echo to-err >&2; exit 7", timeout=LIMIT)
        assert (ran.stdout, ran.stderr, ran.exit_status) == ("to-out\n", "to-err\n", 7), ran
        print("exec", flush=True)
        ran = await connection.run("kill -TERM $$", timeout=LIMIT)
        assert ran.exit_signal and ran.exit_signal[0] == "TERM", ran
        print("signal", flush=True)
        ran = await connection.run("echo $LC_ONE-$FOO", env={"LC_ONE": "one", "FOO": "two"}, timeout=LIMIT)
        assert ran.stdout == "one-\n", ran
        print("environment", flush=True)
        await large(connection)
        await terminal(connection)
        await forward(connection, int(echo_port))
        await listener(connection)
        await sftp(connection, directory)


async def large(connection):
    data = os.urandom(LARGE)
    async with connection.create_process("cat", encoding=None) as process:
        out, _ = await asyncio.wait_for(process.communicate(data), LIMIT)
    assert out == data and process.exit_status == 0
    print("stdin", flush=True)


async def terminal(connection):
    async with connection.create_process(term_type="vt220", term_size=(97, 31)) as process:
        process.stdin.write("PS1=; stty size; echo $TERM-is-the-ter''minal\n")
        seen = await asyncio.wait_for(process.stdout.readuntil("vt220-is-the-terminal"), LIMIT)
        assert "31 97" in seen, seen
        process.change_terminal_size(120, 40)
        process.stdin.write("stty size\n")
        await asyncio.wait_for(process.stdout.readuntil("40 120"), LIMIT)
        process.stdin.write("sleep 1000\n")
        await asyncio.wait_for(process.stdout.readuntil("sleep 1000"), LIMIT)
        process.stdin.write("\x03")
        process.stdin.write("exit 5\n")
        await asyncio.wait_for(process.wait_closed(), LIMIT)
        assert process.exit_status in (5, 130), process.exit_status
    print("terminal", flush=True)


async def forward(connection, echo_port):
    """Fifty connections at once through a listener here."""
    near = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", echo_port)

    async def one(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", near.get_port())
        text = f"connection {number}\n".encode()
        writer.write(text)
        assert await asyncio.wait_for(reader.readexactly(len(text)), LIMIT) == text
        writer.close()

    await asyncio.gather(*(one(number) for number in range(50)))
    near.close()
    await near.wait_closed()
    print("forward", flush=True)


async def listener(connection):
    """A port of the node that leads here, where that is allowed."""
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        heard.set_result(await reader.readline())
        writer.close()

    def accept(_host, _port):
        return serve

    try:
        far = await asyncio.wait_for(connection.start_server(accept, "127.0.0.1", 0, encoding=None), LIMIT)
    except asyncssh.ChannelListenError:
        print("no listener", flush=True)
        return
    line = f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{far.get_port()}; echo from the node >&3'"
    await connection.run(line, timeout=LIMIT)
    assert await asyncio.wait_for(heard, LIMIT) == b"from the node\n"
    far.close()
    print("listener", flush=True)


async def sftp(connection, directory):
    here, data = f"{directory}/asyncssh", os.urandom(LARGE)
    async with connection.start_sftp_client() as files:
        await files.mkdir(here)
        async with files.open(f"{here}/large", "wb") as file:
            await file.write(data)
        await files.posix_rename(f"{here}/large", f"{here}/moved")
        await files.chmod(f"{here}/moved", 0o640)
        assert (await files.stat(f"{here}/moved")).permissions & 0o777 == 0o640
        assert [name for name in sorted(await files.listdir(here)) if not name.startswith(".")] == ["moved"]
        async with files.open(f"{here}/moved", "rb") as file:
            assert await file.read() == data
        assert await files.realpath(f"{here}/./moved") == f"{here}/moved"
        await files.rmtree(here)
        assert not await files.exists(here)
    print("sftp", flush=True)
    # Its own scp speaks the old protocol.
    with open(f"{directory}/near", "wb") as file:
        file.write(data)
    await asyncio.wait_for(asyncssh.scp(f"{directory}/near", (connection, f"{directory}/far")), LIMIT)
    await asyncio.wait_for(asyncssh.scp((connection, f"{directory}/far"), f"{directory}/back"), LIMIT)
    with open(f"{directory}/back", "rb") as file:
        assert file.read() == data
    print("scp", flush=True)


asyncio.run(main())
