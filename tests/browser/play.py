#!/usr/bin/env python3
"""Makes a short catalogue, serves it with sluice and lets a browser play it: play.py SLUICE SYNTH chromium|firefox"""
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from judge.certs import Authority  # noqa: E402
from judge.keyserver import KeyServer  # noqa: E402
from judge.server import Server  # noqa: E402

SONGS = ("first-light", "low-tide")  # the one with FLAC, the one with Opus
# hls.js takes an identity key for one to decrypt with by itself, which it cannot for cbcs in fragmented MP4.
ALL_SYSTEMS = "drm: { systems: all, in_band: common }\n"
NO_IDENTITY = "derive: {}\ndrm: { clearkey: { no_identity: true } }\n"


def main():
    sluice, synth, browser = sys.argv[1:]
    subprocess.run([HERE / "../../tools/npm"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="sluice-browser-") as work:
        command = [HERE / "../../demo/make-catalogue", "--synth", synth, "--out", work, "--seconds", "24"]
        subprocess.run(command + [f"--song={s}" for s in SONGS], check=True)
        authority = Authority(f"{work}/authority")
        with KeyServer(authority.issue("server")) as keys:
            provider = f"providers: [{{ type: speke2.0, url: '{keys.url()}', ca_file: {authority.ca} }}]\n"
            with Server(sluice, f"{work}/media", "--insecure-clearkey") as server, \
                    Server(sluice, f"{work}/media", "--insecure-clearkey", keys=NO_IDENTITY) as other, \
                    Server(sluice, f"{work}/media", "--insecure-clearkey", keys=provider + ALL_SYSTEMS) as remote:
                origins = [f"http://127.0.0.1:{s.port}" for s in (server, other, remote)]
                assets = [f"coastline/{s}" for s in SONGS]
                return subprocess.run(["node", HERE / "play.mjs", *origins, *assets, browser]).returncode


if __name__ == "__main__":
    sys.exit(main())
