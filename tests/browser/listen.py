#!/usr/bin/env python3
"""Serves tones that say what is heard and where in it, and lets listeners do what they do: listen.py SLUICE

Each second of a track has a tone of its own, and each track one of its own all the time; listen.js hears both.
"""
import concurrent.futures
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from judge.ports import free_port  # noqa: E402
from judge.server import Server  # noqa: E402

SECONDS, LOOPS = 48, 75  # of a song; songs in the long track
AAC = ["-c:a", "aac", "-aac_coder", "fast", "-b:a"]
# Folder: {track: (voice, seconds, language, codec)}. A voice is the number of the track's tone.
MEDIA = {
    "song": {"aac-96": (0, SECONDS, "und", [*AAC, "96k"]), "aac-256": (1, SECONDS, "und", [*AAC, "256k"])},
    "codecs": {"flac": (2, SECONDS, "und", ["-c:a", "flac", "-strict", "-2"]), "opus": (3, SECONDS, "und", ["-c:a", "libopus", "-b:a", "96k"])},
    "tongues": {"en": (4, 32, "eng", [*AAC, "96k"]), "de": (5, 32, "deu", [*AAC, "96k"])},
    "short": {"aac": (6, 4, "und", [*AAC, "128k"])},
    "next": {"aac": (7, 4, "und", [*AAC, "128k"])},
}
# These have the song's lowest rate, too.
COPIES = [f"{what}-{who}" for what in ("rotated", "revoked") for who in ("shaka", "hls", "dash", "firefox")] + ["revoked-demo", "codecs"]
FRAGMENTED = ["-map_metadata", "-1", "-movflags", "+cmaf+delay_moov", "-frag_duration", "2000000", "-f", "mp4"]


def encode(folder, track, voice, seconds, language, codec):
    tones = f"0.2*sin(2*PI*(600+40*floor(t))*t)+0.2*sin(2*PI*{5000 + 500 * voice}*t)+0.05*(random(0)-0.5)"  # noise, so that rates differ
    source = f"aevalsrc='{tones}':s=48000:d={seconds}"
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", source, *codec, *FRAGMENTED,
                    "-metadata:s:a:0", f"language={language}", str(folder / f"{track}.mp4")], check=True)


def make_media(media):
    """The long track is the song over and over, without encoding again."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        jobs = []
        for asset, tracks in MEDIA.items():
            (media / asset).mkdir(parents=True)
            jobs += [pool.submit(encode, media / asset, name, *how) for name, how in tracks.items()]
        for job in jobs:
            job.result()
    for asset in COPIES:
        (media / asset).mkdir(exist_ok=True)
        shutil.copy(media / "song" / "aac-96.mp4", media / asset)
    (media / "long").mkdir()
    loops = media.parent / "loops.txt"  # -stream_loop of ffmpeg 7 makes each as long as its packets, priming and all
    loops.write_text(f"file {media / 'song' / 'aac-96.mp4'}\nduration {SECONDS}\n" * LOOPS)
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-f", "concat", "-safe", "0", "-i", str(loops), "-c", "copy",
                    *FRAGMENTED, str(media / "long" / "aac-96.mp4")], check=True)


class Orders(http.server.ThreadingHTTPServer):
    """What a page may order: /rotate?asset=…[&revoke=1], /restart."""

    def __init__(self, sluice, server):
        orders = {"/rotate": self.rotate, "/restart": self.restart}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                url = urllib.parse.urlsplit(self.path)
                try:
                    status, answer = 200, orders[url.path](dict(urllib.parse.parse_qsl(url.query)))
                except Exception as e:  # pylint: disable=broad-except
                    status, answer = 500, {"error": repr(e)}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.sluice, self.server = sluice, server
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def rotate(self, query):
        more = ["--revoke"] if query.get("revoke") else []
        command = [self.sluice, "rotate", query["asset"], "--admin", f"127.0.0.1:{self.server.admin_port}", *more]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}

    def restart(self, _):
        return {"status": self.server.restart()}


@contextlib.contextmanager
def demo_page(origin, work):
    """The demo's page for one song of a server; gives its address."""
    catalogue, port = work / "catalogue.json", free_port()
    catalogue.write_text(json.dumps([{"asset": "revoked-demo", "title": "Song", "mood": "even", "tracks": ["aac-96"]}]))
    npm = HERE / "../npm/node_modules"
    page = subprocess.Popen([HERE / "../../demo/serve-page", "--origin", origin, "--catalogue", catalogue, "--npm", npm, "--port", str(port)])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        page.terminate()
        page.wait()


def main():
    sluice = sys.argv[1]
    subprocess.run([HERE / "../../tools/npm"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="sluice-listen-") as work:
        media = pathlib.Path(work) / "media"
        make_media(media)
        tiers = "derive: {}\ndrm: { per_tier: true }\n"
        with Server(sluice, media, "--insecure-clearkey") as server, \
                Server(sluice, media, "--insecure-clearkey", keys=tiers, config="cenc_iv_size: 16\n") as wide, \
                Server(sluice, media) as closed, Orders(sluice, server) as orders, contextlib.ExitStack() as stack:
            demo = [stack.enter_context(demo_page(f"http://127.0.0.1:{s.port}", pathlib.Path(work))) for s in (server, closed)]
            origins = [f"http://127.0.0.1:{s.port}" for s in (server, wide, closed)]
            code = subprocess.run(["node", HERE / "listen.mjs", *origins, f"http://127.0.0.1:{orders.server_address[1]}", *demo]).returncode
            orders.shutdown()
            return code


if __name__ == "__main__":
    sys.exit(main())
