#!/usr/bin/env python3
"""Runs a server and lets Chromium look at the page of its admin listener, until the server ends: dashboard.py SLUICE [PICTURE]

With PICTURE clients come and go for two minutes, and the page is left there as a picture."""
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from judge.load import media  # noqa: E402
from judge.server import Server  # noqa: E402


def clients(server, stop):
    """More and fewer of them, for songs that are hot and songs that are not."""
    def ask(n):
        r, c = random.Random(n), server.client()
        while not stop.is_set():
            scheme = r.choice(("cbcs", "cbcs", "cenc"))
            c.get(f"/album/{'song' if r.random() < 0.8 else 'other'}/{scheme}/1/aac/{r.randrange(1, 4)}.m4s" if r.random() < 0.97 else "/album/none/cbcs/master.m3u8")
            time.sleep(0.004 + 0.02 * (1 + (int(time.monotonic() / 7 + n) % 4)) * r.random())
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    return threads


def picture(sluice, work, path):
    media(work / "media", ["album/song", "album/other"])
    stop = threading.Event()
    with Server(sluice, work / "media") as server:
        threads = clients(server, stop)
        server.admin("/rotate?scope=album/", "POST")
        done = subprocess.run(["node", HERE / "dashboard.mjs", f"http://127.0.0.1:{server.admin_port}/", path]).returncode
        stop.set()
        for t in threads:
            t.join()
    return done


def main():
    subprocess.run([HERE / "../../tools/npm"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="sluice-dashboard-") as work:
        if len(sys.argv) > 2:
            return picture(sys.argv[1], pathlib.Path(work), sys.argv[2])
        media(pathlib.Path(work) / "media", ["album/song"])
        with Server(sys.argv[1], pathlib.Path(work) / "media") as server:
            for scope in ("a%3Ci%3Eb", ""):
                server.admin(f"/rotate?scope={scope}", "POST")
            for path in ("/album/song/cbcs/master.m3u8", "/album/song/cbcs/2/aac/1.m4s", "/album/none/cbcs/master.m3u8"):
                server.get(path)
            node = subprocess.Popen(["node", HERE / "dashboard.mjs", f"http://127.0.0.1:{server.admin_port}/"], stdout=subprocess.PIPE, text=True)
            for line in node.stdout:
                if line == "ready\n":
                    server.stop()
                else:
                    print(line, end="", flush=True)
            return node.wait()


if __name__ == "__main__":
    sys.exit(main())
