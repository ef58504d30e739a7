#!/usr/bin/env python3
"""Runs a server and lets Chromium look at the page of its admin listener, until the server ends: dashboard.py SLUICE"""
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from judge.load import media  # noqa: E402
from judge.server import Server  # noqa: E402


def main():
    subprocess.run([HERE / "../../tools/npm"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="sluice-dashboard-") as work:
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
