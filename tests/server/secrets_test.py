#!/usr/bin/env python3
"""No secret in a core image taken under load, nor in logs, metrics, /status and error texts: secrets_test.py SLUICE

Two servers, one with a keys file of records, one that derives from a master secret, are loaded in every way and then
made to dump core with requests under way. The core is searched for master secrets, content keys, and every round key of
their AES schedules (any of which gives the key back), raw, in hex and in base64; and for the numbers of private keys.
"""
import base64
import hashlib
import hmac
import os
import pathlib
import random
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.aes import Aes128  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.keyserver import KeyServer, key_of  # noqa: E402
from judge.server import Client, Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

SECONDS = 1
LOADED, SHAKEN = 100, 5  # requests, and handshakes with each certificate: more than these
ASSETS = [f"album/a{n}" for n in range(6)]
SMALL = ("--cache-clear", "8M", "--index-size", "16M", "--cache-encrypted", "2M", "--max-connections", "200", "--output-buffers", "16", "--segment-target", "0", "--output-buffers", "16", "--workers", "2")


def hkdf(prk, info, n=16):
    return hmac.new(prk, info + b"\1", hashlib.sha256).digest()[:n]


def derived(secret, asset, epoch, scheme, label=b""):
    """(PRK, key, iv) as docs/keys.md says."""
    prk = hmac.new(b"sluice keys v1", secret, hashlib.sha256).digest()
    text = lambda b: struct.pack(">I", len(b)) + b  # noqa: E731
    rest = text(asset.encode()) + struct.pack(">I", epoch) + text(scheme.encode()) + text(label)
    return prk, hkdf(prk, b"sluice key v1" + rest)


def asked(kind, asset, scheme):
    """The key that the test key server gives: by the KID that is asked for, or that it makes itself."""
    if kind == "json":
        return key_of(hashlib.sha256(f"{asset} 1 {scheme} ".encode()).hexdigest()[:32])
    text = lambda b: struct.pack(">I", len(b)) + b  # noqa: E731
    kid = bytearray(hashlib.sha256(b"sluice public kid v1" + text(asset.encode()) + struct.pack(">I", 1) + text(scheme.encode()) + text(b""))
                    .digest()[:16])
    kid[6], kid[8] = 0x80 | kid[6] & 15, 0x80 | kid[8] & 63
    return key_of(kid.hex())


def key_servers(tap, sluice, work, media):
    """Keys that come over a network, again and again, with a password."""
    authority = Authority(work / "authority")
    cert = authority.issue("server")
    password = os.urandom(15).hex()
    (work / "token").write_text(password)
    (work / "pair").write_text("user:" + password)
    for kind, tls, more in (("speke2.1", True, f"bearer_file: {work}/token, ca_file: {authority.ca}"),
                            ("json", True, f"basic_file: {work}/pair, ca_file: {authority.ca}"), ("json", False, f"bearer_file: {work}/token")):
        keys = {f"{a} {s}": asked(kind, a, s) for a in ASSETS for s in ("cenc", "cbcs")}
        with KeyServer(cert if tls else None) as ks:
            provider = f"type: {kind}, url: '{ks.url('/json' if kind == 'json' else '/speke')}', lifetime: 600ms, refresh: 100ms, {more}"
            name = f"{kind} over {'https' if tls else 'http'}"
            secrets = {"password": password.encode(), "pair": b"user:" + password.encode(), **keys}
            judge(tap, sluice, name, work, secrets, keys,
                  Server(sluice, media, *SMALL, "--revalidate", "50ms", "--access-log", "access.log", keys=f"providers: [{{ {provider} }}]\n"))
            tap.ok(len(ks.requests()) > len(keys), f"{name}: keys were asked for again and again")


def private_numbers(key, kind):
    """What of a private key must stay secret, and a line of the file it is in."""
    der = subprocess.run(["openssl", "pkey", "-in", key, "-traditional", "-outform", "DER"], check=True, capture_output=True).stdout
    line = pathlib.Path(key).read_bytes().splitlines()[2 if kind == "RSA" else 1]
    if kind == "EC":  # RFC 5915: SEQUENCE, INTEGER 1, OCTET STRING of 32 bytes
        at = der.index(b"\x02\x01\x01\x04\x20") + 5
        return {f"{kind} d": der[at:at + 32], f"{kind} file": line}
    numbers, at = [], 4  # RFC 8017 A.1.2: version, n, e, d, p, q, exponents, coefficient
    while at < len(der):
        size, at = der[at + 1], at + 2
        if size & 0x80:
            size, at = int.from_bytes(der[at:at + (size & 0x7f)], "big"), at + (size & 0x7f)
        numbers.append(der[at:at + size].lstrip(b"\0"))
        at += size
    return {f"{kind} file": line} | {f"{kind} {n}": v for n, v in zip(("d", "p", "q", "dp", "dq", "qinv"), numbers[3:])}


def tls_keys(tap, sluice, work, media):
    """Certificates' private keys, read at start and at each reload, and used."""
    authority, secrets, certs, stop = Authority(work / "certificates"), {}, [], threading.Event()
    for kind, name, how in (("EC", "localhost", ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")), ("RSA", "rsa.test", ("rsa:2048",))):
        cert, key = authority.issue(name, f"DNS:{name}", kind=how)
        certs.append(f"  - {{ cert: {cert}, key: {key} }}\n")
        secrets |= private_numbers(key, kind)
    port, done = free_port(), {"localhost": 0, "rsa.test": 0}

    def shake_hands():
        context = ssl.create_default_context(cafile=str(authority.ca))
        while not stop.is_set():
            for name in done:
                try:
                    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=name) as s:
                        s.sendall(f"GET /{ASSETS[0]}/cbcs/1/t/1.m4s HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                        done[name] += s.recv(100).startswith(b"HTTP/1.1 ")
                except OSError:
                    time.sleep(0.01)  # not there yet, or gone
    thread = threading.Thread(target=shake_hands)
    thread.start()
    judge(tap, sluice, "TLS", work, secrets, {}, Server(sluice, media, *SMALL, "--tls-listen", f"127.0.0.1:{port}", "--access-log", "access.log",
                                                        config="tls_certificates:\n" + "".join(certs), keys=f"derive: {{ secret_file: {work}/master.key }}\n"),
          loaded=lambda: min(done.values()) > SHAKEN)
    stop.set()
    thread.join()
    tap.ok(min(done.values()) > SHAKEN, "TLS: hands were shaken with both", done)


def locked_kib(server):
    return int(next(line.split()[1] for line in pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmLck:")))


def little_to_lock(tap, sluice, work, media):
    """Private keys beyond RLIMIT_MEMLOCK: a warning, wherever the limit ends. One key takes little of it."""
    cert, key = Authority(work / "locking").issue("rsa.test", "DNS:rsa.test", kind=("rsa:2048",))
    few = work / "few"
    root = "setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock" if not os.getuid() else ""  # whom the limit would not bind
    few.write_text(f'#!/bin/bash\nulimit -l 64\nexec {root} {sluice} "$@"\n')
    few.chmod(0o755)
    for num, warned in ((1, False), (20, True)):
        flags = {"config": f"tls_listen: 127.0.0.1:{free_port()}\ntls_certificates:\n" + f"  - {{ cert: {cert}, key: {key} }}\n" * num}
        with Server(sluice, media, **flags) as server:
            if not locked_kib(server):
                tap.skip(f"TLS: {num} private keys and 64 KiB to lock", "nothing is locked here: a sanitizer")
                continue
        with Server(str(few), media, **flags) as server:
            said = [line for line in server.log() if "private keys of certificates cannot be locked" in line]
            tap.equal(len(said), int(warned), f"TLS: {num} private keys and 64 KiB to lock: {'one' if warned else 'no'} warning")


def forms(secret):
    """Every way in which a secret could stand in memory or text."""
    b64 = base64.b64encode(secret)
    return {secret, secret.hex().encode(), secret.hex().upper().encode(), b64.rstrip(b"="),
            base64.urlsafe_b64encode(secret).rstrip(b"="), b"".join(reversed([secret[i:i + 1] for i in range(len(secret))])),
            secret.hex().encode("utf-16-le")}


def swapped(b):
    return b"".join(b[i:i + 4][::-1] for i in range(0, 16, 4))


def inverse_mix(b):
    """InvMixColumns of one round key: what decryption schedules hold."""
    def mul(a, c):
        out = 0
        while c:
            out ^= a if c & 1 else 0
            a = ((a << 1) ^ (0x11B if a & 0x80 else 0)) & 0xFF
            c >>= 1
        return out
    out = bytearray()
    for i in range(0, 16, 4):
        c = b[i:i + 4]
        for j in range(4):
            out.append(mul(c[j], 14) ^ mul(c[(j + 1) & 3], 11) ^ mul(c[(j + 2) & 3], 13) ^ mul(c[(j + 3) & 3], 9))
    return bytes(out)


def round_keys(key):
    words = Aes128(key).words
    keys = [b"".join(w.to_bytes(4, "big") for w in words[i:i + 4]) for i in range(0, 44, 4)]
    return keys + [inverse_mix(k) for k in keys[1:10]]


def scan(data, secrets, keys):
    """What is found in `data`: [(name, form, place)]. Round keys are looked for where compilers put them, at multiples of 8."""
    found = []
    for name, secret in secrets.items():
        for form in forms(secret):
            at = data.find(form)
            if at >= 0:
                found.append((name, form[:4], at))
    wanted = {}
    for name, key in keys.items():
        for n, r in enumerate(round_keys(key)):
            for form in (r, swapped(r)):
                wanted[struct.unpack("<Q", form[:8])[0]] = (f"{name}, round key {n}", form)
    words = memoryview(data)[:len(data) // 8 * 8].cast("Q")
    for word in set(words) & set(wanted):
        name, form = wanted[word]
        at = data.find(form)
        if at >= 0:
            found.append((name, form[:4], at))
    return found


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def load(server, paths, seconds):
    """Threads that ask for everything, for so long at the least; returns the function that ends them."""
    stop, done = threading.Event(), [0]

    def ask(seed):
        r = random.Random(seed)
        try:
            c = server.client()
            while not stop.is_set():
                path = r.choice(paths)
                headers = {"Range": f"bytes={r.randrange(900)}-{r.randrange(1000, 20000)}"} if r.random() < 0.3 else {}
                if c.get(path, headers=headers).status in (200, 206):
                    done[0] += 1
        except (OSError, EOFError, ValueError):
            pass  # the server is gone

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    time.sleep(seconds)
    wait_for(lambda: done[0] > LOADED)

    def end():
        stop.set()
        for t in threads:
            t.join()
        return done[0]
    return end


def data_of(path):
    """The bytes of a file without its holes: pages that were never touched."""
    out, at = bytearray(), 0
    with open(path, "rb") as f:
        end = os.fstat(f.fileno()).st_size
        while at < end:
            try:
                start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
            out += os.pread(f.fileno(), at - start, start)
    return bytes(out)


def where(core, at):
    return core[max(0, at - 48):at + 48].hex()


def judge(tap, sluice, name, work, secrets, keys, server, token=None, loaded=lambda: True):
    paths = [f"/{a}/{s}/{rest}" for a in ASSETS for s in ("cenc", "cbcs")
             for rest in ("master.m3u8", "manifest.mpd", "1/t/media.m3u8", "1/t/init.mp4", "1/t.mp4", "1/t/1.m4s", "1/t/2.m4s")]
    texts = []
    with server:
        end = load(server, paths, SECONDS)
        wait_for(loaded)
        for path in ("/metrics", "/status", "/", "/nothing"):
            texts.append(server.admin(path).body)
        operators = [Client(server.admin_port) for _ in range(2)]  # one goes, one stays
        for c, how in list(zip(operators, ("close", "keep-alive")))[:2 if token else 1]:
            status = c.get("/rotate?scope=album/a0", "POST", {"Connection": how, **({"Authorization": f"Bearer {token}"} if token else {})}).status
            tap.ok(status == 200 or not token, f"{name}: a rotation", status)
        operators[0].close()
        server.signal(signal.SIGHUP)
        for path in ("/album/a1/cbcs/1/t/key", "/album/a1/cbcs/9/t.mp4", "/album/a1/nope/1/t.mp4"):
            texts.append(server.get(path).body)
        server.get("/album/a1/cbcs/1/license", "POST", body=b'{"kids":["AAAA"]}')
        time.sleep(0.3)
        server.signal(signal.SIGABRT)
        server.process.wait(60)
        tap.ok(end() > LOADED, f"{name}: it was under load")
        texts += [line.encode() for line in server.log()]
        log = work / "access.log"
        texts.append(log.read_bytes() if log.exists() else b"")
    found = scan(b"\n".join(texts), secrets, {})
    tap.ok(not found, f"{name}: no secret in logs, metrics, status and error texts", found)
    cores = list(work.glob("core*"))
    if not cores:
        tap.skip(f"{name}: core image", "this system does not write a core file into the working directory (core_pattern)")
        return
    core = data_of(cores[0])
    cores[0].unlink()
    ok = tap.ok(b"album/a3" in core and b"cenc:default_KID" in core, f"{name}: the core image, {len(core) >> 20} MB, holds the heap")
    found = scan(core, secrets, keys) if ok else []
    tap.ok(not found, f"{name}: no secret in the core image", "\n".join(f"{f} {where(core, f[2])}" for f in found[:12]))


def main():
    tap = Tap()
    sluice = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-secrets-") as folder:
        work = pathlib.Path(folder)
        os.chdir(work)
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        media = work / "media"
        for n, asset in enumerate(ASSETS):
            (media / asset).mkdir(parents=True)
            (media / asset / "t.mp4").write_bytes(bytes(synth.plain(300 + n)[0]))
        # Found when it is there: the scan itself can fail.
        key = os.urandom(16)
        planted = os.urandom(4096) + base64.b64encode(key) + os.urandom(4096 + 8 - 24) + round_keys(key)[7] + bytes(8)
        tap.equal(len(scan(planted, {"k": key}, {"k": key})), 2, "a planted key and a planted round key are found")

        # Records that nobody asks for pass through the reader of the keys file all the same.
        keys, lines = {}, []
        unused = {f"unused {n}": os.urandom(16) for n in range(16)}
        for name, key in unused.items():
            lines.append(f"  - {{ asset: {name}, scheme: cenc, kid: '{os.urandom(16).hex()}', key: {key.hex()} }}")
        for a in ASSETS:
            for s in ("cenc", "cbcs"):
                key = keys[f"{a} {s}"] = os.urandom(16)
                lines += [f"  - {{ asset: {a}, epoch: {e}, scheme: {s}, kid: '{os.urandom(16).hex()}', key: '{k.hex()}' }}"
                          for e, k in ((1, key), (2, os.urandom(16)))]
        judge(tap, sluice, "records", work, {**keys, **unused}, keys,
              Server(sluice, media, *SMALL, "--access-log", "access.log", keys="keys:\n" + "\n".join(lines) + "\n"))

        secret, keys = os.urandom(32), {}
        (work / "master.key").write_bytes(secret)
        for a in ASSETS:
            for s in ("cenc", "cbcs"):
                prk, key = derived(secret, a, 1, s)
                keys[f"{a} {s}"] = key
        token = os.urandom(15).hex()
        (work / "admin.token").write_text(token)
        judge(tap, sluice, "derivation", work, {"secret": secret, "PRK": prk, "token": token.encode(), **keys}, keys,
              Server(sluice, media, *SMALL, "--access-log", "access.log", "--admin-token-file", str(work / "admin.token"), keys=f"derive: {{ secret_file: {work}/master.key }}\n"), token)
        key_servers(tap, sluice, work, media)
        tls_keys(tap, sluice, work, media)
        little_to_lock(tap, sluice, work, media)
    tap.end()


if __name__ == "__main__":
    main()
