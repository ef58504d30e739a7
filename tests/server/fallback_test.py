#!/usr/bin/env python3
"""Where io_uring is forbidden: the server starts with epoll, says so, and serves the same bytes. Where openat2 is, it does not start:
fallback_test.py SLUICE"""
import errno
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server, environment  # noqa: E402
from judge.tap import Tap  # noqa: E402

FORBID = str(pathlib.Path(__file__).resolve().parents[1] / "judge" / "no_uring.py")
OPENAT2 = "437"  # on every architecture
PATHS = ["/a/cenc/1/t.mp4", "/a/cbcs/1/t.mp4", "/a/cenc/master.m3u8"]


def bodies(server):
    got = [server.get(p) for p in PATHS]
    return [(r.status, r.body) for r in got]


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-fallback-") as folder:
        media, state = pathlib.Path(folder) / "media", pathlib.Path(folder) / "state"
        synth.one_track(media, 300)
        with Server(sluice, media, state=state) as server:
            here = server.wait_log("ready:")
            tap.ok(", io_uring," in here or ", epoll," in here, "the log names what drives the sockets", here)
            if ", io_uring," in here:
                tap.equal([line for line in server.log() if "drives the sockets" in line], [], "no fallback where io_uring is allowed")
            else:
                tap.skip("no fallback where io_uring is allowed", "io_uring is not to be had here")
            want = bodies(server)
        tap.equal([status for status, _ in want], [200] * len(PATHS), "served as always")
        for number in (errno.EPERM, errno.ENOSYS):
            name = errno.errorcode[number]
            env = environment(NO_URING=f"{sluice}:{number}")
            with Server(FORBID, media, env=env, state=state) as server:
                tap.ok(server.wait_log("ready: .* epoll,"), f"{name}: it starts, with epoll", server.log())
                lines = [line for line in server.log() if "io_uring cannot be used here" in line and "epoll drives the sockets" in line]
                tap.equal(len(lines), 1, f"{name}: one line says so")
                tap.equal(bodies(server), want, f"{name}: it serves the same bytes")
                tap.equal(server.stop(), 0, f"{name}: and ends in good order")
            p = subprocess.run([FORBID, "serve", "--media", str(media), "--listen", "127.0.0.1:0", "--state-dir", str(state), "--io", "io_uring"],
                               env=env, capture_output=True, text=True, timeout=20)
            tap.ok(p.returncode == 1 and "io_uring cannot be used here" in p.stderr, f"{name}: who insists on io_uring is told", p)
            env["FORBID"] = OPENAT2
            for check in (["--check"], []):
                p = subprocess.run([FORBID, "serve", "--media", str(media), "--listen", "127.0.0.1:0", "--state-dir", str(state), *check],
                                   env=env, capture_output=True, text=True, timeout=20)
                tap.ok(p.returncode == 1 and "openat2, with which media are opened, cannot be used" in p.stderr,
                       f"{name}: without openat2 it does not start{', and --check says so' * bool(check)}", p)
    tap.end()


if __name__ == "__main__":
    main()
