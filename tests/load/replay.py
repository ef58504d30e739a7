#!/usr/bin/env python3
"""Same seed, same requests, byte for byte; however many processes; and nothing else: replay.py SLUICE"""
import collections
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.load import Load, Proxy, keys_text, media  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSETS = ["album/one", "two", "three"]
SCENARIO = """name: replay
seed: 77
arrivals: [{ for: 500ms, rate: 30, poll: 150ms }, { for: 500ms, rate: 90 }, { for: 500ms, rate: [90, 10] }]
drain: 300ms
catalogue: { assets: [album/one, two, three], release_share: 50% }
scheme: cbcs
protocol: mix
player: { timeout: 100s, ahead: 2, tracks: 3, skip: 2, seek: 20%, pause: 20%, pause_for: 200ms, switch_rendition: 20%, token_ttl: 400ms }
clients: { abort: 30%, half_close: 20%, range: 30%, conditional: 30%, head: 30%, reconnect: 20% }
verify: { share: 50%, media: media, keys: keys.yaml }
level: { lag_p99_ms: 20000 }
"""
RATE = """name: replay
seed: 78
mode: rate
rate: 300
seconds: 1s
connections: 8
catalogue: { assets: [album/one, two, three] }
scheme: cenc
"""


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ASSETS, seconds=6, tracks=("aac-1", "aac-2"))
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)

        def slow(path, response):
            time.sleep(0.0005)
        with Server(sluice, folder / "media", keys=keys_text(ASSETS)) as server, Proxy(server.port) as proxy:
            def play(scenario, *flags, change=None):
                """What the proxy saw and what the log says, each as a multiset, and the totals."""
                proxy.heads, proxy.change = [], change or (lambda path, response: None)
                log = folder / "requests"
                r = load(scenario, proxy.url, "--request-log", log, *flags)
                lines = log.read_text().splitlines()
                return collections.Counter(proxy.heads), sorted(lines), r
            first, log, r = play(SCENARIO)
            t = r.json["totals"]
            tap.ok(r.code == 0 and sum(first.values()) > 500, f"{sum(first.values())} requests of {t['sessions']} sessions", r.out.decode())
            for what in ("aborted", "not_modified", "ranges", "heads", "polls"):
                tap.ok(t[what] > 0, f"among them {what}", t)
            again, log_again, _ = play(SCENARIO)
            tap.ok(first == again, "same seed, same requests: what arrived is the same, byte for byte",
                   "\n".join(str(x) for x in list(((first - again) + (again - first)).items())[:6]))
            tap.ok(log == log_again, "same seed, same requests: the log of every listener is the same")
            seen = collections.Counter(l.split(" ", 2)[2].replace("\\r\\n", "\r\n").encode().removesuffix(b"\r\n\r\n") for l in log)
            tap.ok(seen == first, "the log is what arrived", "\n".join(str(x) for x in list(((first - seen) + (seen - first)).items())[:6]))
            later, log_later, r_later = play(SCENARIO, change=slow)
            tap.ok(first == later and log == log_later, "a slower server is asked the same",
                   "\n".join(str(x) for x in list(((first - later) + (later - first)).items())[:6]))
            many, log_many, r_many = play(SCENARIO, "--processes", "3", "--threads", "2")
            tap.ok(first == many and log == log_many, "six threads in three processes ask the same as one",
                   "\n".join(str(x) for x in list(((first - many) + (many - first)).items())[:6]))
            for what in ("requests", "bytes", "sessions", "segments", "verified", "aborted", "ranges", "heads", "polls", "errors"):
                tap.equal(r_many.json["totals"][what], t[what], f"their sum: {what}")
            for tag in ("latency", "service", "startup"):
                tap.equal(sum(r_many.hdr[tag].values()), sum(r.hdr[tag].values()), f"their sum: the histogram of {tag}")
            other, _, _ = play(SCENARIO, "--seed", "79")
            tap.ok(other != first, "another seed, other requests")
            one, log_one, _ = play(RATE)
            two, log_two, _ = play(RATE)
            tap.ok(len(log_one) == 300 and one == two and log_one == log_two, "mode rate: same seed, same requests", len(log_one))
    tap.end()


if __name__ == "__main__":
    main()
