#!/usr/bin/env python3
"""What a service manager is told, as systemd's Type=notify and Type=notify-reload expect it: manager_test.py SLUICE"""
import os
import pathlib
import re
import signal
import socket
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server, environment  # noqa: E402
from judge.tap import Tap  # noqa: E402


def told(manager):
    try:
        return manager.recv(4096).decode()
    except TimeoutError:
        return "nothing"


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-manager-") as folder:
        media = pathlib.Path(folder) / "media"
        synth.one_track(media, 30)
        for name in (f"{folder}/notify", f"@sluice-manager-{os.getpid()}"):
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(name.replace("@", "\0"))
            manager.settimeout(15)
            with Server(sluice, media, env=environment(NOTIFY_SOCKET=name)) as server:
                tap.equal(told(manager), "READY=1", f"{name[0]}: it says that it is ready")
                tap.equal(server.admin("/ready").status, 200, f"{name[0]}: and is")
                server.process.send_signal(signal.SIGHUP)
                tap.ok(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told(manager)), f"{name[0]}: it says that it reloads")
                tap.equal(told(manager), "READY=1", f"{name[0]}: and that it has")
                tap.equal(server.stop(), 0, f"{name[0]}: it ends in good order")
                tap.equal(told(manager), "STOPPING=1", f"{name[0]}: and has said so")
            manager.close()
        with Server(sluice, media, env=environment(NOTIFY_SOCKET=f"{folder}/nobody")) as server:
            tap.ok(server.wait_log("NOTIFY_SOCKET: the service manager cannot be told: No such file"), "a manager that is gone is a warning", server.log())
            tap.equal(server.get("/a/cbcs/1/t.mp4").status, 200, "and it serves")
    tap.end()


if __name__ == "__main__":
    main()
