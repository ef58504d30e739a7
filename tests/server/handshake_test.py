#!/usr/bin/env python3
"""Handshakes that go wrong and what is told of them: records out of place, plain HTTP, signatures with SHA-1, clients'
certificates of every kind, which certificate a client gets, ones that cannot be used well: handshake_test.py SLUICE"""
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.server import Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

PATH = "/a/cenc/1/t.mp4"
EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def config_of(port, cert, key, *more):
    return "\n".join((f"tls_listen: 127.0.0.1:{port}", f"tls_certificate: {cert}", f"tls_key: {key}", "log_level: debug", *more, ""))


def record(body, kind=22, version=b"\x03\x01"):
    return bytes([kind]) + version + len(body).to_bytes(2, "big") + body


def hello():
    """The ClientHello of this machine's TLS, as a message without its record."""
    context, out = ssl.create_default_context(), ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()[5:]


def talk(port, data, pause=0.0, end=False):
    """Everything the server says to those bytes, and how it ends: "FIN", "RST"."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        try:
            s.sendall(data)
            if end:
                s.shutdown(socket.SHUT_WR)
            time.sleep(pause)
            while piece := s.recv(1 << 16):
                got += piece
        except (ConnectionResetError, BrokenPipeError):
            return got, "RST"
    return got, "FIN"


def counted(server, name, label=""):
    return sum(int(n) for n in re.findall(rf'^sluice_{name}\{{[^}}]*{label}\}} (\d+)', server.admin("/metrics").body.decode(), re.M))


def failures(server):
    return counted(server, "tls_handshakes_total", 'result="failed"')


def alert(number):
    return re.compile(rb"\x15\x03[\x01\x03]\x00\x02\x02" + re.escape(bytes([number])) + rb"\Z", re.S)


def outcomes(tap, sluice, media, authority, io):
    cert, key = authority.issue("outcomes")
    port, h = free_port(), hello()
    whole = record(h)
    unexpected, overflow, version, illegal = 10, 22, 70, 47
    refused = (
        ("garbage", b"\xa7" * 100, version, "WRONG_VERSION_NUMBER"),
        ("100 empty records", record(b"") * 100, unexpected, "TOO_MANY_EMPTY_FRAGMENTS"),
        ("50 warnings", record(b"\x01\x5a", 21) * 50, unexpected, "TOO_MANY_WARNING_ALERTS"),
        ("a record too long", record(b"\x01" * 18000), overflow, "ENCRYPTED_LENGTH_TOO_LONG"),
        ("a hello of 64 KB", record(b"\x01\x00\xff\xff" + bytes(1000)), illegal, "EXCESSIVE_MESSAGE_SIZE"),
        ("application data first", record(bytes(30), 23), unexpected, "UNEXPECTED_RECORD"),
        ("a server's hello", record(b"\x02" + h[1:]), unexpected, "UNEXPECTED_MESSAGE"),
        ("Finished first", record(b"\x14\x00\x00\x0c" + bytes(12)), unexpected, "UNEXPECTED_MESSAGE"),
        ("TLS 9", record(h, version=b"\x09\x09"), version, "WRONG_VERSION_NUMBER"),
    )
    taken = (("a byte a record", b"".join(record(bytes([b])) for b in h)), ("empty records in between", record(h[:50]) + record(b"") * 10 + record(h[50:])),
             ("a warning in between", record(h[:50]) + record(b"\x01\x5a", 21) + record(h[50:])))
    with Server(sluice, media, "--io", io, config=config_of(port, cert, key, "header_timeout: 1s")) as server:
        def says(pattern, what):
            tap.ok(server.wait_log(f"TLS handshake with 127.0.0.1 failed: {pattern}", 10, seen), f"{io}, {what}: the log says why", server.log()[seen:])
            tap.equal(failures(server), failed + 1, f"{io}, {what}: counted")

        for name, data, number, why in refused:
            seen, failed = len(server.log()), failures(server)
            got, _ = talk(port, data)
            tap.ok(alert(number).match(got), f"{io}, {name}: alert {number}", got)
            says(f"TLS: {why}", name)
        got, how = talk(port, record(b"\x01" * 18000) * 5, pause=0.3)
        tap.ok(alert(overflow).match(got) and how == "FIN", f"{io}, more comes behind what is refused: the alert arrives", (got, how))
        for name, data in taken:
            got, _ = talk(port, data)
            tap.ok(got.startswith(b"\x16\x03\x03"), f"{io}, {name}: taken", got[:20])
        for name, data, end, why in (("nothing more", whole, True, "the client went away"), ("half a hello", whole[:60], True, "the client went away"),
                                     ("half a hello, and silence", whole[:60], False, "it was not done within header_timeout")):
            seen, failed = len(server.log()), failures(server)
            talk(port, data, end=end)
            says(why, name)
        seen, failed = len(server.log()), failures(server)
        talk(port, b"", end=True)
        talk(port, b"")
        tap.equal((failures(server), server.log()[seen:]), (failed, []), f"{io}, who says nothing is no handshake")
        for name, data in (("GET", f"GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n"), ("CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n")):
            seen, failed = len(server.log()), failures(server)
            got, how = talk(port, data.encode())
            tap.ok(re.match(rb"HTTP/1\.1 400 .*\r\nConnection: close\r\n\r\n400 [^\n]*https\n\Z", got, re.S) and how == "FIN", f"{io}, plain {name}: 400 in plain HTTP", got)
            says("TLS: HTTPS?_", f"plain {name}")
        context = ssl.create_default_context(cafile=str(authority.ca))
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost") as s:
            seen = len(server.log())
            s.sendall(f"HEAD {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            tap.equal(s.recv(12), b"HTTP/1.1 200", f"{io}: and a whole one is served")
            socket.socket.sendall(s, record(os.urandom(64), 23, b"\x03\x03"))
            tap.ok(server.wait_log("TLS connection with 127.0.0.1 failed: TLS: BAD_DECRYPT", 10, seen), f"{io}: a forged record", server.log()[seen:])
        tap.equal(counted(server, "errors_total", 'reason="client_reset"'), 1, f"{io}: which is counted")
        numbers = [("tls_handshakes_total", 'result="ok"'), ("tls_resumed_total",), ("errors_total", 'reason="client_reset"')]
        before, seen = [counted(server, *n) for n in numbers], len(server.log())
        context.maximum_version = V12
        first = None
        for _ in range(2):
            with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost", session=first) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # in one segment with what is no record behind it
                s.sendall(f"HEAD {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
                socket.socket.sendall(s, record(os.urandom(64), 23, b"\x03\x03"))
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
                got = b"".join(iter(lambda: s.recv(1000), b""))
                tap.ok(got.startswith(b"HTTP/1.1 200") and got.endswith(b"\r\n\r\n"), f"{io}: the last request is answered, and the end is said", got)
                first = s.session
        tap.equal([counted(server, *n) - b for n, b in zip(numbers, before)], [2, 1, 0], f"{io}: handshakes and resumed ones are counted, and nothing of what stands behind a last request")
        tap.equal(server.log()[seen:], [], f"{io}: nor is it logged")
        tap.equal(server.stop(), 0, f"{io}: and it ends in good order")


def signatures(tap, sluice, media, authority):
    """RFC 9155: none with SHA-1, whatever the client asks for; nor is one asked for of clients."""
    for name, kind in (("ECDSA", EC), ("RSA", ("rsa:2048",))):
        cert, key = authority.issue(f"sig-{name}", kind=kind)
        port = free_port()
        with Server(sluice, media, config=config_of(port, cert, key, f"tls_client_ca: {authority.ca}")):
            for digest, wanted in (("SHA1", False), ("SHA256", True)):
                p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-sigalgs", f"{name}+{digest}", "-cipher",
                                    "DEFAULT@SECLEVEL=0", "-cert", cert, "-key", key], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
                tap.ok(("Peer signing digest" in p.stdout) == wanted, f"{name} with {digest}: {'signed' if wanted else 'refused'}", p.stdout[-300:] + p.stderr[-300:])
                asked = re.search(r"Requested Signature Algorithms: (.*)", p.stdout)
                if wanted:
                    tap.ok(asked and "SHA1" not in asked[1] and "ed25519" in asked[1].lower(), f"{name}: what is asked of clients", asked)


def choices(tap, sluice, media, authority):
    """One with the very name before a wildcard, and of several for a name the first that the client can verify."""
    pairs = {name: authority.issue(name, alt=alt, kind=kind) for name, alt, kind in (
        ("first-p384", "DNS:first.test,DNS:*.first.test", (*EC[:2], "ec_paramgen_curve:P-384")), ("first-rsa", "DNS:*.first.test,DNS:FIRST.test,DNS:more.test", ("rsa:2048",)),
        ("only-p384", "DNS:only.test", (*EC[:2], "ec_paramgen_curve:P-384")), ("www-ed25519", "DNS:www.first.test", ("ed25519",)), ("address", "IP:127.0.0.1", EC))}
    port = free_port()
    certs = "".join(f"  - {{ cert: {c}, key: {k} }}\n" for c, k in pairs.values())
    old, new = ["-tls1_2"], ["-tls1_3"]
    rsa_alone = [*old, "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], [*old, "-sigalgs", "RSA+SHA256"], [*new, "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"]
    no_rsa = [*new, "-sigalgs", "ECDSA+SHA384:ed25519"], [*old, "-sigalgs", "ECDSA+SHA256:ed25519"], [*old, "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], [*old, "-groups", "P-384"], [*new, "-groups", "X25519"]
    anything = old, new, []
    with Server(sluice, media, config=f"tls_listen: 127.0.0.1:{port}\ntls_certificates:\n{certs}") as server:
        for name, clients, want in (("first.test", (*anything, *no_rsa), "first-p384"), ("first.test", rsa_alone, "first-rsa"), ("a.first.test", anything, "first-p384"),
                                    ("A.FIRST.test", rsa_alone, "first-rsa"), ("a.b.first.test", anything, "first-p384"), ("www.first.test", (*anything, *no_rsa), "www-ed25519"),
                                    ("www.first.test", rsa_alone, "first-rsa"), ("more.test", anything, "first-rsa"), ("only.test", anything, "only-p384"), ("only.test", rsa_alone, None),
                                    ("address", anything, "address"), (None, anything, "first-p384"), (None, rsa_alone, "first-rsa"), ("unknown.test", anything, "first-p384"),
                                    ("unknown.test", rsa_alone, "first-rsa"), ("first.test", ([*new, "-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256"], [*old, "-groups", "X25519:P-256"]), "first-rsa")):
            for client in clients:
                p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *(["-servername", name] if name else ["-noservername"]), *client],
                                   stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
                got = re.search(r"^subject=CN ?= ?(.*)$", p.stdout, re.M)
                tap.ok((got and got[1]) == want, f"{name or 'no name'}, {' '.join(client) or 'all of them'}: {want or 'none'}", (got and got[1], p.stderr[-300:]))
        for name, told in (("first.test", True), ("A.first.test", True), ("only.test", True), ("a.b.first.test", False), ("unknown.test", False)):
            p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, *old, "-tlsextdebug"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
            tap.equal(('TLS server extension "server name"' in p.stdout, "BEGIN CERTIFICATE" in p.stdout), (told, True), f"{name}: whether the certificate is for it is told")
        tap.equal(server.stop(), 0, "many certificates: and it ends in good order")


def client_certificates(tap, sluice, media, authority, work):
    clients, others = Authority(work / "clients", "clients"), Authority(work / "others", "others")
    cert, key = authority.issue("for-clients")

    def issue(name, kind=EC, by=clients, days=2, usage="clientAuth"):
        return by.issue(name, days=days, kind=kind, more=f"extendedKeyUsage={usage}\n")

    leaf = issue("leaf")
    below = Authority.__new__(Authority)  # a leaf that plays the authority
    below.folder, below.ca, below.key = work / "below", pathlib.Path(leaf[0]), pathlib.Path(leaf[1])
    below.folder.mkdir()
    under = issue("under", by=below)
    pathlib.Path(under[0]).write_text(pathlib.Path(under[0]).read_text() + pathlib.Path(leaf[0]).read_text())
    good = {n: issue(n, kind) for n, kind in (("P-256", EC), ("P-384", (*EC[:2], "ec_paramgen_curve:P-384")), ("P-521", (*EC[:2], "ec_paramgen_curve:P-521")),
                                              ("Ed25519", ("ed25519",)), ("RSA", ("rsa:2048",)))}
    bad = {"none": (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"), "another authority's": (issue("wrong", by=others), "unable to get local issuer"),
           "expired": (issue("expired", days=-1), "has expired"), "a server's": (issue("serving", usage="serverAuth"), "unsupported certificate purpose"),
           "below a leaf": (under, "invalid CA certificate"),
           "of 60 KB": (clients.issue("large", alt=",".join(f"DNS:host-{n:05d}.some.long.name.example.net" for n in range(1500))), "EXCESSIVE_MESSAGE_SIZE")}
    port = free_port()
    with Server(sluice, media, config=config_of(port, cert, key, f"tls_client_ca: {clients.ca}")) as server:
        def visit(version, pair):
            context = ssl.create_default_context(cafile=str(authority.ca))
            context.minimum_version = context.maximum_version = version
            if pair:
                context.load_cert_chain(*pair)
            try:
                with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost") as s:
                    s.sendall(f"HEAD {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                    return s.recv(12)
            except OSError as e:
                return str(e)

        for version in (V12, V13):
            for name, pair in good.items():
                seen = len(server.log())
                got = visit(version, pair)
                tap.ok(got == b"HTTP/1.1 200", f"{version.name}, a client's certificate, {name}: served", (got, server.log()[seen:]))
            for name, (pair, why) in bad.items():
                seen = len(server.log())
                got = visit(version, pair)
                tap.ok(isinstance(got, str) and "alert" in got, f"{version.name}, a client's certificate, {name}: an alert", got)
                tap.ok(server.wait_log(f"handshake with .* failed: .*{why}", 10, seen), f"{version.name}, a client's certificate, {name}: the log says why", server.log()[seen:])
        tap.equal(server.stop(), 0, "clients' certificates: and it ends in good order")


def odd_certificates(tap, sluice, media, authority, work):
    cert, key = authority.issue("plain")
    other, _ = authority.issue("other")
    text, ca = pathlib.Path(cert).read_text(), authority.ca.read_text()

    def file(name, content):
        (work / name).write_text(content)
        return str(work / name)

    def check(cert, key, *more):
        p = subprocess.run([sluice, "serve", "--check", "--media", str(media), "--state-dir", str(work / "state"), "-c",
                            file("check.yaml", config_of(free_port(), cert, key, *more))], capture_output=True, text=True, timeout=30)
        return p.returncode, p.stderr

    weak, now = authority.issue("weak", kind=("rsa:1024",)), int(time.time())
    middle = Authority.__new__(Authority)  # between the authority and a server
    middle.folder = work / "middle"
    middle.folder.mkdir()
    middle.ca, middle.key = (pathlib.Path(f) for f in authority.issue("middle"))
    (authority.folder / "middle.ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
    subprocess.run(["openssl", "x509", "-req", "-in", str(authority.folder / "middle.csr"), "-CA", str(authority.ca), "-CAkey", str(authority.key), "-days", "2",
                    "-extfile", str(authority.folder / "middle.ext"), "-out", str(middle.ca)], check=True, capture_output=True)
    below = middle.issue("below")
    three, early = pathlib.Path(below[0]).read_text() + middle.ca.read_text(), authority.issue_until("early", now + 86400, now + 2 * 86400)
    for name, pair, want in (("alone", (cert, key), ""), ("with its issuer", (file("full.pem", text + ca), key), ""),
                             ("with two above it", (file("three.pem", three + ca), below[1]), ""),
                             ("with another above its issuer", (file("odd.pem", three + text), below[1]), "number 3 in it is not the issuer of the one before"),
                             ("not valid yet", early, "number 1 in it is not valid yet: clients refuse it"), ("RSA of 2048 bits", authority.issue("strong", kind=("rsa:2048",)), ""),
                             ("expired", authority.issue("old", days=-1), "number 1 in it has expired"),
                             ("with another behind it", (file("junk.pem", text + pathlib.Path(other).read_text()), key), "number 2 in it is not the issuer of the one before"),
                             ("RSA of 1024 bits", weak, "its RSA key has 1024 bits")):
        status, said = check(*pair)
        lines = [line for line in said.splitlines() if " warn " in line]
        tap.ok(status == 0 and (len(lines) == 1 and want in lines[0] and f"certificate {pair[0]}: " in lines[0] if want else not lines), f"a certificate, {name}: {want or 'no warning'}", said)
    names = ",".join(f"DNS:host-{n:05d}.some.long.name.example.net" for n in range(1500))
    large = authority.issue("large", alt=names)
    status, said = check(*large)
    tap.ok(status == 1 and f"certificate {large[0]}: " in said and "no handshake has room" in said, "a certificate too large for a handshake is refused", said)
    status, said = check(file("tall.pem", text + pathlib.Path(large[0]).read_text()), key)
    tap.ok(status == 1 and "no handshake has room" in said, "and one with a chain that is", said)
    many = ""
    for n in range(90):
        many += subprocess.run(["openssl", "req", "-x509", "-key", str(authority.key), "-days", "2", "-subj", f"/CN={n:03d}/O={'o' * 60}/OU={'u' * 60}/L={'l' * 120}/ST={'s' * 120}/street={'r' * 120}"],
                               check=True, capture_output=True, text=True).stdout
    names = file("many.pem", many)
    status, said = check(cert, key, f"tls_client_ca: {names}")
    tap.ok(status == 1 and f"client authorities {names}: " in said and "give fewer" in said, "more authorities than a handshake has room for are refused", said)
    curve = authority.issue("koblitz", kind=(*EC[:2], "ec_paramgen_curve:secp256k1"))
    status, said = check(*curve)
    tap.ok(status == 1 and "its kind of key is not supported" in said, "a curve that TLS does not have is refused by name", said)
    # as much as is taken passes a socket of small segments at once
    room = ",".join(f"DNS:host-{n:05d}.some.long.name.example.net" for n in range(980))
    fits = authority.issue("fits", alt="DNS:localhost," + room)
    port = free_port()
    with Server(sluice, media, config=config_of(port, *fits)):
        for version in (V12, V13):
            context = ssl.create_default_context(cafile=str(authority.ca))
            context.minimum_version = context.maximum_version = version
            s = socket.socket()
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1200)
            s.settimeout(20)
            s.connect(("127.0.0.1", port))
            with context.wrap_socket(s, server_hostname="localhost") as s:
                tap.equal(s.version(), version.name.replace("_", "."), f"{version.name}: a certificate of {pathlib.Path(fits[0]).stat().st_size * 3 // 4} bytes")


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-handshakes-") as folder:
        work = pathlib.Path(folder)
        (work / "state").mkdir(mode=0o700)
        media = work / "media"
        synth.one_track(media, 300)
        authority = Authority(work / "ours")
        for io in ("io_uring", "epoll"):
            outcomes(tap, sluice, media, authority, io)
        signatures(tap, sluice, media, authority)
        choices(tap, sluice, media, authority)
        client_certificates(tap, sluice, media, authority, work)
        odd_certificates(tap, sluice, media, authority, work)
    tap.end()


if __name__ == "__main__":
    main()
