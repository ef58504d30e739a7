#!/usr/bin/env python3
"""Signals in odd orders, and while files that a start or a reload reads do not answer: signals_test.py SLUICE"""
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.programs import run  # noqa: E402
from judge.server import Client, Server, free_port  # noqa: E402
from judge.slow_disk import slow_disk  # noqa: E402
from judge.tap import Tap  # noqa: E402

KEYS = "derive: {}\n"
INIT = "/a/cbcs/1/t/init.mp4"


def fed(fifo, text, timeout=20):
    """Whether somebody reads a pipe meanwhile, who is given the text."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.02)
            continue
        os.write(fd, text.encode())
        os.close(fd)
        return True
    return False


def listening(process, *signals, timeout=20):
    """Waits until a process that was just begun blocks signals, or has something to do for them: before, they end any program."""
    want, end = sum(1 << (s - 1) for s in signals), time.monotonic() + timeout
    while time.monotonic() < end:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        if want & ~int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16) & ~int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) == 0:
            return
        time.sleep(0.01)


def ended(process, timeout=30):
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None


def as_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def as_file(path, text):
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def starting(tap, sluice, work, media):
    """A keys file that is a pipe nobody writes to, as with `--keys <(sops …)` that waits for a word."""
    keys = work / "start.yaml"
    for sig in (signal.SIGTERM, signal.SIGINT):
        as_pipe(keys)
        p = subprocess.Popen([sluice, "serve", "--media", media, "--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}",
                              "--state-dir", work / "start", "--keys", keys], stderr=subprocess.PIPE)
        time.sleep(0.5)
        tap.equal(p.poll(), None, f"{sig.name}: a start waits for its keys")
        p.send_signal(sig)
        tap.ok(ended(p) in (-sig, 128 + sig), f"{sig.name} ends it", p.poll())
        p.kill()
        p.communicate()
    as_pipe(keys)
    log = work / "start.log"
    with open(log, "w") as to:
        p = subprocess.Popen([sluice, "serve", "--media", media, "--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}",
                              "--state-dir", work / "start", "--keys", keys], stderr=to)

    def said(text):
        end = time.monotonic() + 10
        while text not in log.read_text() and time.monotonic() < end:
            time.sleep(0.02)
        return text in log.read_text()
    listening(p, signal.SIGUSR1, signal.SIGHUP)
    for sig in (signal.SIGUSR1, signal.SIGHUP):
        p.send_signal(sig)
    tap.ok(fed(keys, KEYS) and said(" ready: "), "SIGUSR1 and SIGHUP end no start: it reads on", log.read_text())
    tap.ok(fed(keys, KEYS) and said(" reloaded "), "and the reload comes after it", log.read_text())
    p.send_signal(signal.SIGTERM)
    tap.equal(ended(p), 0, "then SIGTERM ends it in good order")
    p.kill()
    config = work / "start.conf"
    as_pipe(config)
    with open(log, "w") as to:
        p = subprocess.Popen([sluice, "serve", "-c", config, "--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}", "--state-dir", work / "start"],
                             stderr=to)
    listening(p, signal.SIGUSR1)
    p.send_signal(signal.SIGUSR1)
    tap.ok(fed(config, f"media: {media}\n") and said(" ready: "), "nor does SIGUSR1 while the configuration is read", log.read_text())
    p.send_signal(signal.SIGTERM)
    tap.equal(ended(p), 0, "which SIGTERM ends as well")
    p.kill()


def reloading(tap, sluice, work, media):
    """A reload whose files do not answer holds up nothing else."""
    keys, cert, key, log = work / "keys.yaml", work / "c.pem", work / "k.pem", work / "access.log"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=t", "-days", "9")
    pem = key.read_text()
    flags = ["--keys", str(keys), "--access-log", str(log), "--tls-listen", f"127.0.0.1:{free_port()}", "--tls-certificate", str(cert), "--tls-key", str(key),
             "--drain-timeout", "500ms"]
    # Who is not waited for leaves threads.
    env = {**os.environ, "TSAN_OPTIONS": ":".join(x for x in (os.environ.get("TSAN_OPTIONS"), "report_thread_leaks=0") if x)}
    for name, file, text in (("keys", keys, KEYS), ("a TLS key", key, pem)):
        as_file(keys, KEYS)
        as_file(key, pem)
        signal.pthread_sigmask(signal.SIG_BLOCK if file == key else signal.SIG_UNBLOCK, [signal.SIGALRM])  # which the server inherits
        with Server(sluice, media, *flags, state=work / "reload", env=env) as server:
            as_pipe(file)
            server.signal(signal.SIGHUP)
            time.sleep(0.3)
            log.rename(work / "access.old")
            server.signal(signal.SIGUSR1)
            end = time.monotonic() + 20
            while not log.exists() and time.monotonic() < end:
                time.sleep(0.05)
            tap.ok(log.exists(), f"{name}: SIGUSR1 is heard while a reload waits")
            tap.equal(server.get(INIT).status, 200, f"{name}: clients are answered")
            server.signal(signal.SIGHUP)
            tap.ok(server.wait_log("another follows"), f"{name}: a second SIGHUP meanwhile is told what is the matter", server.log()[-3:])
            tap.ok(fed(file, text), f"{name}: the first reads what comes")
            tap.ok(server.wait_log("reloaded"), f"{name}: and is done", server.log()[-3:])
            seen = len(server.log())
            tap.ok(fed(file, "nonsense: 1\n"), f"{name}: the second reads too")
            tap.ok(server.wait_log("reload refused", after=seen), f"{name}: and is refused", server.log()[-3:])
            server.signal(signal.SIGHUP)
            time.sleep(0.3)
            server.signal(signal.SIGTERM)
            tap.equal(ended(server.process), 0, f"{name}: SIGTERM ends the server while a reload waits")
            tap.ok(server.wait_log("a reload whose files do not answer is not waited for"), f"{name}: which is said", server.log()[-3:])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    as_file(key, pem)
    as_file(keys, KEYS)
    with Server(sluice, media, *flags[:-1], "20s", state=work / "reload") as server:
        c = Client(server.port)
        c.socket.sendall(f"GET {INIT} HT".encode())  # what the drain waits for
        as_pipe(keys)
        server.signal(signal.SIGHUP)
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        tap.ok(server.wait_log("draining"), "SIGTERM is heard while a reload waits")
        tap.ok(fed(keys, KEYS), "the reload goes on in the drain")
        time.sleep(0.3)
        tap.ok(not server.wait_log("reloaded", timeout=0.5), "but does not come into force", server.log()[-3:])
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGUSR1)
        c.close()
        tap.equal(ended(server.process), 0, "it ends, SIGHUP and SIGUSR1 meanwhile or not")
        tap.ok(server.wait_log("stopped$"), "having waited for all", server.log()[-3:])


def odd_orders(tap, sluice, work, media):
    """Whatever comes in whatever order, with orders and requests meanwhile: SIGTERM ends it with status 0."""
    rng = random.Random(7)
    keys = work / "odd.yaml"
    as_file(keys, KEYS + "epochs: { schedule: [ { match: b/, every: 1s } ] }\n")
    for turn in range(6):
        with Server(sluice, media, "--keys", str(keys), "--access-log", str(work / "odd.log"), "--drain-timeout", "1s", state=work / "odd") as server:
            order = Client(server.admin_port)
            c = server.client()
            sent = 0
            for _ in range(40):
                server.signal(rng.choice([signal.SIGHUP, signal.SIGUSR1]))
                if rng.random() < 0.3 and sent < 8:
                    order.send("/rotate?scope=a&grace_ms=600000", "POST")
                    sent += 1
                if rng.random() < 0.5:
                    c.get(INIT)
                time.sleep(rng.random() * 0.02)
            server.signal(signal.SIGHUP)
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGHUP)
            tap.equal(ended(server.process, 30), 0, f"turn {turn}: status 0")
            bad = [line for line in server.log() if "ERROR: " in line or "WARNING: ThreadSanitizer" in line or "runtime error" in line or " error " in line]
            tap.ok(not bad and server.wait_log("stopped$"), f"turn {turn}: all in order", "\n".join(server.log()[-30:]))
            order.close()
            c.close()


def without_storage(tap, sluice, work, media):
    """Storage that answers only after the drain: what was asked of it is given back, which a sanitizer sees to."""
    env, still = slow_disk(tap, work)
    if not env:
        return
    with Server(sluice, media, "--io", "epoll", "--workers", "1", "--drain-timeout", "200ms", env={**env, "SLOW_MEDIA": str(still)}) as server:
        tap.equal(server.get(INIT).status, 200, "a track is open")
        still.touch()
        left, stays = server.client(), server.client()
        for n, c in enumerate((left, stays), 1):
            c.send(f"/a/cbcs/1/t/{n}.m4s")
        end = time.monotonic() + 20
        while not (both := b'cache="segment",result="miss"} 2\n' in server.admin("/metrics").body) and time.monotonic() < end:
            time.sleep(0.02)
        tap.ok(both, "both wait for storage")
        left.close()
        server.signal(signal.SIGTERM)
        tap.ok(stays.closed(20), "the drain is over while storage is waited for")
        still.unlink()
        tap.equal(ended(server.process, 30), 0, "status 0")
        tap.ok(server.wait_log("stopped$") and not any("Sanitizer" in line for line in server.log()), "all is given back", "\n".join(server.log()[-30:]))
        stays.close()


def main():
    tap = Tap()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever the tests were started by: a shell's & and nohup ignore some
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    sluice = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-signals-") as folder:
        work = pathlib.Path(folder)
        media = work / "media"
        for n, asset in enumerate(("a", "b/c")):
            (media / asset).mkdir(parents=True)
            (media / asset / "t.mp4").write_bytes(bytes(synth.plain(300 + n)[0]))
        for part in (starting, reloading, odd_orders, without_storage):
            part(tap, sluice, work, media)
    tap.end()


if __name__ == "__main__":
    main()
