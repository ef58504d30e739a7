#!/usr/bin/env python3
"""What a service manager is told, as systemd's Type=notify and Type=notify-reload expect it: manager_test.py SLUICE"""
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server, environment  # noqa: E402
from judge.tap import Tap  # noqa: E402


def told(manager):
    try:
        return manager.recv(4096).decode()
    except TimeoutError:
        return "nothing"


def metric(server, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in server.admin("/metrics").body.decode().splitlines() if line.startswith(name))


def ending(tap, sluice, folder, media):
    """A reload that has read its files when the server is ending already: nothing of it comes into force, which is said, and it has not failed."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(f"{folder}/ending")
    manager.settimeout(15)
    keys = pathlib.Path(folder) / "keys.yaml"
    keys.write_text("derive: {}\n")
    keys.chmod(0o600)
    with Server(sluice, media, "--keys", str(keys), env=environment(NOTIFY_SOCKET=f"{folder}/ending")) as server:
        tap.equal(told(manager), "READY=1", "a server with keys that a pipe will give")
        keys.unlink()
        os.mkfifo(keys, 0o600)
        busy = server.client()  # who does not read on, and holds the drain up
        busy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        busy.send("/a/cbcs/1/t.mp4")
        tap.equal(busy.socket.recv(12), b"HTTP/1.1 200", "a response is under way")
        server.process.send_signal(signal.SIGHUP)
        tap.ok(told(manager).startswith("RELOADING=1"), "a reload begins")
        server.process.send_signal(signal.SIGTERM)
        tap.equal(told(manager), "STOPPING=1", "the server ends meanwhile")
        keys.write_text("derive: {}\n")  # waits for its reader
        tap.ok(server.wait_log("info reload given up: the server is ending"), "the reload is given up, and that is said", server.log())
        tap.ok(not any("reload refused" in line or "reloaded" in line for line in server.log()), "it is neither refused nor in force", server.log())
        tap.equal(metric(server, 'sluice_reloads_total{worker="shared",result="failed"}'), 0, "nor counted as failed")
        busy.close()
        tap.equal(server.stop(), 0, "it ends in good order")
    manager.settimeout(0.2)
    tap.equal(told(manager), "nothing", "the manager hears nothing after STOPPING=1")
    manager.close()


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-manager-") as folder:
        media = pathlib.Path(folder) / "media"
        synth.one_track(media, 6000)
        for name in (f"{folder}/notify", f"@sluice-manager-{os.getpid()}"):
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(name.replace("@", "\0"))
            manager.settimeout(15)
            with Server(sluice, media, env=environment(NOTIFY_SOCKET=name)) as server:
                tap.equal(told(manager), "READY=1", f"{name[0]}: it says that it is ready")
                tap.equal(server.admin("/ready").status, 200, f"{name[0]}: and is")
                before = time.monotonic_ns() // 1000
                server.process.send_signal(signal.SIGHUP)
                said = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", told(manager))
                tap.ok(said and before <= int(said[1]) <= time.monotonic_ns() // 1000, f"{name[0]}: it says that it reloads, and since when", said)
                tap.equal(told(manager), "READY=1", f"{name[0]}: and that it has")
                tap.equal(server.stop(), 0, f"{name[0]}: it ends in good order")
                tap.equal(told(manager), "STOPPING=1", f"{name[0]}: and has said so")
            manager.close()
        with Server(sluice, media, env=environment(NOTIFY_SOCKET=f"{folder}/nobody")) as server:
            tap.ok(server.wait_log("NOTIFY_SOCKET: the service manager cannot be told: No such file"), "a manager that is gone is a warning", server.log())
            tap.equal(server.get("/a/cbcs/1/t.mp4").status, 200, "and it serves")
        with Server(sluice, media, env=environment(NOTIFY_SOCKET="/" + "x" * 107)) as server:
            tap.ok(server.wait_log("NOTIFY_SOCKET is too long"), "so is a name that no socket can have", server.log())
            tap.equal(server.get("/a/cbcs/1/t.mp4").status, 200, "and it serves")
        ending(tap, sluice, folder, media)
    tap.end()


if __name__ == "__main__":
    main()
