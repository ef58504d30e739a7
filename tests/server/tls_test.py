#!/usr/bin/env python3
"""Certificates of a running server: SIGHUP takes new ones over for new connections alone, and OCSP responses that the openssl
command makes are checked and stapled: tls_test.py SLUICE"""
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.server import Client, Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

PATH = "/a/cenc/1/t.mp4"


class Secure(Client):
    """A connection over TLS."""

    def __init__(self, port, ca, version=None, session=None, context=None):
        super().__init__(port)
        self.context = context or ssl.create_default_context(cafile=str(ca))
        if version:
            self.context.minimum_version = self.context.maximum_version = version
        self.socket = self.context.wrap_socket(self.socket, server_hostname="localhost", session=session)

    def serial(self):
        return self.socket.getpeercert()["serialNumber"]


class Half:
    """A handshake that stops in the middle of the client's hello, until `finish`."""

    def __init__(self, port, ca):
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ssl.create_default_context(cafile=str(ca)).wrap_bio(self.into, self.out, server_hostname="localhost")
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.hello = self.out.read()
        self.socket.sendall(self.hello[:100])

    def flow(self, step):
        while True:
            try:
                got = step()
                self.socket.sendall(self.out.read())
                return got
            except ssl.SSLWantReadError:
                self.socket.sendall(self.out.read())
                data = self.socket.recv(1 << 16)
                self.into.write(data) if data else self.into.write_eof()

    def shake(self):
        self.socket.sendall(self.hello[100:])
        self.flow(self.tls.do_handshake)

    def finish(self):
        """(serial number of the server's certificate, the beginning of an answer)"""
        self.shake()
        self.flow(lambda: self.tls.write(f"HEAD {PATH} HTTP/1.1\r\nHost: h\r\n\r\n".encode()))
        return self.tls.getpeercert()["serialNumber"], self.flow(lambda: self.tls.read(12))


def serial_of(cert):
    out = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-serial"], capture_output=True, text=True, check=True).stdout
    return out.strip().partition("=")[2]


def connections(server):
    return json.loads(server.admin("/status").body)["connections"]


def reload(server, pattern):
    """The log line that answers a SIGHUP, None when none comes."""
    seen = len(server.log())
    server.signal(signal.SIGHUP)
    return server.wait_log(pattern, after=seen)


class Responder:
    """What an authority's OCSP responder says, by the openssl command."""

    def __init__(self, authority):
        self.authority, self.folder = authority, authority.folder

    def respond(self, name, cert, *more, request_of=None, revoked=False):
        index, request, response = (self.folder / f"{name}.{e}" for e in ("index", "request", "der"))
        serial = serial_of(cert)
        index.write_text(f"{'R' if revoked else 'V'}\t491231000000Z\t{'260101000000Z' if revoked else ''}\t{serial}\tunknown\t/CN=x\n")
        a = request_of or ["-cert", cert]
        subprocess.run(["openssl", "ocsp", "-issuer", str(self.authority.ca), "-no_nonce", *a, "-reqout", str(request)], check=True, capture_output=True)
        a = ["-index", str(index), "-CA", str(self.authority.ca), "-rsigner", str(self.authority.ca), "-rkey", str(self.authority.key),
             "-reqin", str(request), "-respout", str(response), *more]
        subprocess.run(["openssl", "ocsp", *a], check=True, capture_output=True)
        return response.read_bytes()


def sealer():
    """What the log has to say of who seals records, as the kernel answers."""
    with socket.socket() as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, 31, b"tls")  # TCP_ULP
        except OSError as e:
            if e.errno != errno.ENOTCONN:
                why = r"the kernel's module `tls` is not loaded \(modprobe tls\)" if e.errno == errno.ENOENT else os.strerror(e.errno)
                return f"TLS records are sealed by this process: {why}$"
    return "TLS 1.3 records are sealed by the kernel$"


def long_ago(response):
    """The response, its times ten years back. The signature is then wrong, but an expired one is not for anybody."""
    old = re.sub(rb"\x18\x0f20(\d\d)(\d{10}Z)", lambda m: b"\x18\x0f20%02d%s" % (int(m[1]) - 10, m[2]), response)
    assert old != response and len(old) == len(response)
    return old


def stapled(port, ca, version):
    """What s_client got: "good", "revoked", "nothing", or its words."""
    p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-status", "-CAfile", str(ca), version],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=20)
    if "OCSP response: no response sent" in p.stdout:
        return "nothing"
    m = re.search(r"OCSP Response Status: successful.*?Cert Status: (\w+)", p.stdout, re.S)
    return m[1] if m else p.stdout + p.stderr


def reloads(tap, sluice, work, media, authority):
    cert, key = (str(work / f"server.{e}") for e in ("pem", "key"))
    pairs = [authority.issue(name) for name in ("first", "second")]

    def put(n):
        shutil.copy(pairs[n][0], cert)
        shutil.copy(pairs[n][1], key)

    put(0)
    first, second = (serial_of(c) for c, _ in pairs)
    port = free_port()
    with Server(sluice, media, config=f"tls_listen: 127.0.0.1:{port}\ntls_certificate: {cert}\ntls_key: {key}\nlog_level: debug\n") as server:
        want = server.get(PATH).body
        old = Secure(port, authority.ca)
        tap.equal((old.serial(), old.get(PATH).body), (first, want), "the first certificate is served")
        tap.ok(server.wait_log(sealer()), f"the log says: {sealer()}", server.log())
        resumable = Secure(port, authority.ca, ssl.TLSVersion.TLSv1_2)
        resumable.get(PATH)
        there = connections(server)
        half = Half(port, authority.ca)
        end = time.monotonic() + 10
        while connections(server) <= there and time.monotonic() < end:
            time.sleep(0.01)
        put(1)
        tap.equal(Secure(port, authority.ca).serial(), first, "a new file alone changes nothing")
        tap.ok(reload(server, "reloaded"), "SIGHUP reloads", server.log())
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while s.recv(100):
                pass
        tap.ok(server.wait_log("TLS handshake with 127.0.0.1 failed: TLS: HTTP_REQUEST"), "log_level debug: why a handshake failed", server.log())
        fresh = Secure(port, authority.ca)
        tap.equal((fresh.serial(), fresh.get(PATH).body), (second, want), "new connections get the second")
        tap.equal((old.serial(), old.get(PATH).body), (first, want), "the old connection goes on")
        tap.equal(half.finish(), (first, b"HTTP/1.1 200"), "so does a handshake that was under way")
        again = Secure(port, authority.ca, session=resumable.socket.session, context=resumable.context)
        tap.equal((again.socket.session_reused, again.get(PATH).body), (True, want), "a ticket from before resumes")
        whole = pathlib.Path(pairs[1][0]).read_bytes()
        chain = f"certificate {cert}: cannot be used: give a PEM file: the certificate, then those of its chain ["
        for name, file, data, text in (("garbage", cert, b"no certificate\n", chain + "NO_START_LINE]"), ("half a certificate", cert, whole[:len(whole) // 2], chain),
                                       ("another's key", key, pathlib.Path(pairs[0][1]).read_bytes(),
                                        f"private key {key}: cannot be used: it is not the key of the certificate in {cert} [KEY_VALUES_MISMATCH]"),
                                       ("an empty key", key, b"", f"private key {key}: cannot be used: give a PEM file: the private key of that certificate"),
                                       ("no file", cert, None, f"certificate {cert}: No such file or directory")):
            if data is None:
                pathlib.Path(file).unlink()
            else:
                pathlib.Path(file).write_bytes(data)
            line = reload(server, "reload(ed|.*refused)") or ""
            tap.ok("refused" in line and text in line and file in line, f"{name}: refused, with kind and file", server.log()[-5:])
            got = Secure(port, authority.ca)
            tap.equal((got.serial(), got.get(PATH).body), (second, want), f"{name}: the certificate before stays")
            tap.equal(old.get(PATH).body, want, f"{name}: the old connection goes on")
            put(1)
        put(0)
        tap.ok(reload(server, "reloaded"), "and a good one is taken again", server.log())
        tap.equal(Secure(port, authority.ca).serial(), first, "the first again")
        tap.equal(old.get(PATH).body, want, "the oldest connection still goes on")
        tap.equal(server.stop(), 0, "and it ends in good order")


def renewals(tap, sluice, work, media, authority):
    """As certbot does it: the names are links to numbered files in another folder, and are linked anew."""
    pairs = [authority.issue(name) for name in ("one", "two")]
    live, archive = work / "live" / "x", work / "archive" / "x"
    live.mkdir(parents=True)
    archive.mkdir(parents=True)

    def renew(n):
        for name, file in zip(("cert", "key"), pairs[n]):
            shutil.copy(file, archive / f"{name}{n}.pem")
            fresh = live / f"{name}.new"
            fresh.symlink_to(f"../../archive/x/{name}{n}.pem")
            fresh.rename(live / f"{name}.pem")

    renew(0)
    port = free_port()
    with Server(sluice, media, config=f"tls_listen: 127.0.0.1:{port}\ntls_certificate: {live}/cert.pem\ntls_key: {live}/key.pem\n") as server:
        confined = server.wait_log("sandbox: files and system calls are confined", 1) is not None
        tap.equal(Secure(port, authority.ca).serial(), serial_of(pairs[0][0]), "certificates behind links are served")
        renew(1)
        line = reload(server, "reload(ed|.*refused)") or ""
        tap.ok("refused" not in line and line, f"linked to new files: reloaded{'' if confined else ' (no sandbox here)'}", server.log()[-5:])
        tap.equal(Secure(port, authority.ca).serial(), serial_of(pairs[1][0]), "and new connections get them")


def staples(tap, sluice, work, media, authority):
    cert, key = authority.issue("stapled")
    other, _ = authority.issue("other")
    default = authority.issue("default", alt="DNS:default.test")
    foreign = Authority(work / "foreign", "foreign")
    responder = Responder(authority)
    good = responder.respond("good", cert, "-ndays", "1")
    refused = {
        "plain text": (b"good until tomorrow\n", "not an OCSP response"),
        "nothing": (b"", "not an OCSP response"),
        "the certificate itself": (pathlib.Path(cert).read_bytes(), "not an OCSP response"),
        "half a response": (good[:len(good) // 2], "not an OCSP response"),
        "a response and a byte": (good + b"\0", "not an OCSP response"),
        "of another certificate": (responder.respond("other", other, "-ndays", "1"), "about another certificate"),
        "of another authority": (Responder(foreign).respond("foreign", cert, "-ndays", "1", request_of=["-serial", "0x" + serial_of(cert)]), "about another certificate"),
        "an error of the responder": (b"\x30\x03\x0a\x01\x06", "the responder gave an error"),
    }
    file = work / "response.der"
    file.write_bytes(good)
    port = free_port()
    config = f"tls_listen: 127.0.0.1:{port}\ntls_certificates: [ {{ cert: {default[0]}, key: {default[1]} }}, {{ cert: {cert}, key: {key}, ocsp: {file} }} ]\n"
    versions = ("-tls1_2", "-tls1_3")

    def sent():
        return [stapled(port, authority.ca, v) for v in versions]

    with Server(sluice, media, config=config) as server:
        tap.equal(sent(), ["good"] * 2, "a good response is stapled")
        for name, (data, text) in refused.items():
            file.write_bytes(data)
            line = reload(server, "reload(ed|.*refused)") or ""
            tap.ok("refused" in line and str(file) in line and text in line, f"reload, {name}: refused, with file and reason", server.log()[-5:])
        tap.equal(sent(), ["good"] * 2, "the response before stays")
        for name, data, text, want in (("an expired one", long_ago(good), "expired: it is not stapled", "nothing"),
                                       ("revoked", responder.respond("revoked", cert, "-ndays", "1", revoked=True), "revoked: it is not stapled", "nothing"),
                                       ("unknown", responder.respond("unknown", other, "-ndays", "1", request_of=["-cert", cert]), "unknown: it is not stapled", "nothing"),
                                       ("one without an end", responder.respond("endless", cert), None, "good"),
                                       ("SHA-256 in its name", responder.respond("sha256", cert, "-nmin", "5", request_of=["-sha256", "-cert", cert]), None, "good")):
            file.write_bytes(data)
            seen = len(server.log())
            tap.ok("refused" not in (reload(server, "reload(ed|.*refused)") or "refused"), f"{name}: taken", server.log()[-5:])
            lines = [line for line in server.log()[seen:] if "OCSP" in line]
            tap.ok(len(lines) == 1 and text in lines[0] and str(file) in lines[0] if text else not lines, f"{name}: {'a warning' if text else 'no warning'}", lines)
            tap.equal(sent(), [want] * 2, f"{name}: stapled is {want}")
        tap.equal(server.stop(), 0, "and it ends in good order")
    for name, (data, text) in refused.items():
        file.write_bytes(data)
        p = subprocess.run([sluice, "serve", "--check", "--media", str(media), "--state-dir", str(work / "state"), "-c", str(config_file(work, config))],
                           capture_output=True, text=True, timeout=30)
        tap.ok(p.returncode and str(file) in p.stderr and text in p.stderr, f"start, {name}: refused, with file and reason", p)


def end_of(cert):
    """When a certificate ends, seconds since 1970."""
    out = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-enddate"], capture_output=True, text=True, check=True).stdout
    return ssl.cert_time_to_seconds(out.strip().partition("=")[2])


def expiry(server):
    """{(metric, file): seconds since 1970} as the admin listener has them."""
    text = server.admin("/metrics").body.decode()
    found = re.findall(r'^(sluice_tls_\w+_expiry_seconds)\{file="((?:[^"\\\n]|\\["\\n])*)"\} (\d+)$', text, re.M)
    for name in {f[0] for f in found}:
        assert text.count(f"# TYPE {name} gauge\n") == text.count(f"# HELP {name} ") == 1, text
    assert len(found) == len(re.findall("^sluice_tls_.*expiry", text, re.M)) == len({f[:2] for f in found}), text
    return {(name, re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], file)): int(when) for name, file, when in found}


def ends(tap, sluice, work, media, authority):
    """Certificates that end while the server runs are said, in time and at the end, and have a metric each."""
    odd = work / 'a "quoted\\ n\u00e4me'
    odd.mkdir()
    response, port = work / "ends.der", free_port()
    long, short = authority.issue("long", days=90), authority.issue("short", days=400, alt="DNS:short.test")
    cert, key = (str(odd / f"server.{e}") for e in ("pem", "key"))

    def put(pair):
        shutil.copy(pair[0], cert)
        shutil.copy(pair[1], key)

    put(long)
    response.write_bytes(Responder(authority).respond("ends", short[0], "-ndays", "3"))

    def quoted(file):
        return "'" + str(file).replace("'", "''") + "'"

    config = (f"tls_listen: 127.0.0.1:{port}\ntls_certificates: [ {{ cert: {quoted(cert)}, key: {quoted(key)} }}, {{ cert: {short[0]}, key: {short[1]}, ocsp: {response} }} ]\n"
              f"tls_client_ca: {authority.ca}\n")
    names = [f"sluice_tls_{x}_expiry_seconds" for x in ("certificate", "client_ca", "ocsp")]
    with Server(sluice, media, config=config) as server:
        got = expiry(server)
        tap.equal({k: v for k, v in got.items() if k[0] != names[2]},
                  {(names[0], cert): end_of(cert), (names[0], short[0]): end_of(short[0]), (names[1], str(authority.ca)): end_of(str(authority.ca))}, "metrics: each has its end")
        tap.ok(abs(got[names[2], str(response)] - time.time() - 3 * 86400) < 3600, "a response its own", got)
        tap.ok(not any("renew" in line or "successor" in line for line in server.log()), "far from its end nothing is said", server.log())
        now = int(time.time())
        pair = authority.issue_until("brief", now - 3, now + 21)
        put(pair)
        tap.equal(expiry(server)[names[0], cert], end_of(long[0]), "a new file alone changes nothing")
        tap.ok(reload(server, "reload(ed|.*refused)"), "SIGHUP takes one of 24 seconds")
        tap.equal(expiry(server)[names[0], cert], end_of(pair[0]), "and its end is in the metrics")
        for want in ("number 1 in it ends at .*: renew it", "number 1 in it has expired, at .*: renew it"):
            line = server.wait_log(want, 40) or ""
            tap.ok(cert in line and "SIGHUP" in line and " warn " in line, f"while it is loaded, with nobody asking: {want}", server.log()[-5:])
        tap.equal(len([line for line in server.log() if f"certificate {cert}: " in line]), 2, "each once")
        tap.ok(time.time() >= end_of(cert), "not before its end")
        put(long)
        tap.ok(reload(server, "reload(ed|.*refused)"), "SIGHUP takes the renewed one")
        tap.equal(expiry(server)[names[0], cert], end_of(long[0]), "and its end is in the metrics")
        tap.equal(server.stop(), 0, "and it ends in good order")
    put(authority.issue_until("soon", int(time.time()) - 80 * 86400, int(time.time()) + 10 * 86400 + 600))
    with Server(sluice, media, config=config) as server:
        lines = [line for line in server.log() if "renew" in line]
        tap.ok(len(lines) == 1 and f"certificate {cert}: number 1 in it ends at " in lines[0] and "in 10 days" in lines[0], "start: said once", server.log())
        seen = len(server.log())
        reload(server, "reload(ed|.*refused)")
        lines = [line for line in server.log()[seen:] if "renew" in line]
        tap.ok(len(lines) == 1 and "in 10 days" in lines[0], "reload: said once", server.log()[seen:])
    p = subprocess.run([sluice, "serve", "--check", "--media", str(media), "--state-dir", str(work / "state"), "-c", str(config_file(work, config))],
                       capture_output=True, text=True, timeout=30)
    tap.ok(p.returncode == 0 and p.stderr.count("in 10 days") == 1, "--check says it too", p)
    with Server(sluice, media) as server:
        tap.equal(expiry(server), {}, "without certificates there is no such metric")
    raw = work / os.fsdecode(b"caf\xe9")
    raw.mkdir()
    files = [shutil.copy(f, raw) for f in long]
    with Server(sluice, media, "--tls-listen", f"127.0.0.1:{free_port()}", "--tls-certificate", files[0], "--tls-key", files[1]) as server:
        tap.equal(expiry(server), {(names[0], f"{work}/caf\u00e9/long.crt"): end_of(long[0])}, "a name that is no UTF-8 is written as one")


def together(tap, sluice, work, media, authority):
    """Records of one connection that arrive in one piece. A request that waits for others of its turn is answered before what comes behind it is read."""
    cert, key = authority.issue("together")
    port = free_port()
    with Server(sluice, media, "--tls-listen", f"127.0.0.1:{port}", "--tls-certificate", cert, "--tls-key", key) as server:
        paths = [f"/a/cenc/1/t/{n}.m4s" for n in (1, 2)] + ["/a/cenc/1/t/init.mp4"]
        want = [server.get(path).body for path in paths]
        for count in (2, 3):
            half = Half(port, authority.ca)
            half.shake()
            for n, path in enumerate(paths[-count:], 1):
                half.tls.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n{'Connection: close' if n == count else 'X: y'}\r\n\r\n".encode())
            half.socket.sendall(half.out.read())
            got = b""
            try:
                while part := half.flow(lambda half=half: half.tls.read(1 << 16)):
                    got += part
            except ssl.SSLError as e:
                tap.ok(isinstance(e, ssl.SSLZeroReturnError), "the connection ends in order", e)
            half.socket.close()
            heads = got.split(b"HTTP/1.1 ")[1:]
            tap.ok(len(heads) == count and all(h.startswith(b"200 OK") and h.endswith(b"\r\n\r\n" + w) for h, w in zip(heads, want[-count:])),
                   f"{count} requests, each in a record of its own, in one piece: {count} answers in order", [h[:200] for h in heads])


def config_file(work, text):
    file = work / "check.yaml"
    file.write_text(text)
    return file


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-tls-") as folder:
        work = pathlib.Path(folder)
        (work / "state").mkdir(mode=0o700)
        media = work / "media"
        synth.one_track(media, 300)
        authority = Authority(work / "ours")
        reloads(tap, sluice, work, media, authority)
        renewals(tap, sluice, work, media, authority)
        staples(tap, sluice, work, media, authority)
        ends(tap, sluice, work, media, authority)
        together(tap, sluice, work, media, authority)
    tap.end()


if __name__ == "__main__":
    main()
