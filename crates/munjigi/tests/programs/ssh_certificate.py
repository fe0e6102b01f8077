"""Offers a certificate to an SSH server, whatever is wrong with it; prints `in` or `refused`.

`ssh_certificate.py PORT LOGIN KEY`: KEY is an ed25519 key, the certificate is beside it. OpenSSH's own client does not
offer a certificate that it cannot read, or a host's.
"""

import sys

import paramiko


def main():
    port, login, path = sys.argv[1:4]
    key = paramiko.Ed25519Key.from_private_key_file(path)
    key.load_certificate(path + "-cert.pub")
    transport = paramiko.Transport(("127.0.0.1", int(port)))
    transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 60
    transport.start_client(timeout=60)
    try:
        transport.auth_publickey(login, key)
        print("in")
    except paramiko.AuthenticationException:
        print("refused")
    transport.close()


main()
