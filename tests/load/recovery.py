#!/usr/bin/env python3
"""The recovery after a spike, from a server whose recovery is known: recovery.py SLUICE"""
import collections
import concurrent.futures
import math
import pathlib
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.disturbed import Disturbance  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.load import Load  # noqa: E402
from judge.tap import Tap  # noqa: E402

LIMIT = 100        # requests a second: above that every answer takes SLOW_S, beyond the service level
SLOW_S, LEVEL_S = 0.25, 0.1
SPIKE = 220        # no probe asks for so many
WINDOW_S = 0.1
# All of it as many times slower, where a machine that does other things disturbed what was faster: who sleeps here woke, or the generator
# sent, later than they do where nothing else runs. What was not disturbed counts; of long runs less is disturbed by a little, more by
# a stop of the whole machine.
SCALES = (1, 3, 1, 9, 1, 3, 1)
LATE_S = 0.04


def scenario(scale):
    return f"""name: recovery
seed: 6
mode: capacity
search: {{ from: {30 / scale}, to: {180 / scale}, probes: 6, spike: 3, spike_for: {400 * scale}ms }}
seconds: {600 * scale}ms
drain: {600 * scale}ms
connections: 300
catalogue: {{ assets: [one] }}
scheme: cbcs
level: {{ latency_p99_ms: {1000 * LEVEL_S * scale:.0f}, errors: 0, lag_p99_ms: 5000 }}
"""


class Stopping(Listening):
    """Answers everything, slowly above LIMIT. When a spike is over it answers nothing (`refuse`: 503 at once) for `stop_s`, then goes
    on as before. Its seconds are `scale` long."""

    def __init__(self, stop_s, refuse, scale):
        self.stop_s, self.refuse, self.scale, self.lock, self.recent = stop_s, refuse, scale, threading.Lock(), collections.deque()
        self.spiked, self.until = False, 0.0
        super().__init__()

    def _answer_at(self, now):
        with self.lock:
            self.recent.append(now)
            while self.recent[0] < now - WINDOW_S:
                self.recent.popleft()
            rate = len(self.recent) / WINDOW_S
            if rate > SPIKE:
                self.spiked = True
            elif self.spiked and rate < SPIKE / 2 and not self.until:
                self.until = now + self.stop_s  # the spike is over
            answer_at = now + SLOW_S if rate > 1.3 * LIMIT else now
            return (now, True) if self.refuse and now < self.until else (max(answer_at, 0 if self.refuse else self.until), False)

    def handle(self, s):
        try:
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    more = s.recv(65536)
                    if not more:
                        return
                    head += more
                at, refused = self._answer_at(time.monotonic() / self.scale)
                time.sleep(min(max(0, at * self.scale - time.monotonic()), 60))
                s.sendall((b"HTTP/1.1 503 Busy" if refused else b"HTTP/1.1 200 OK") + b"\r\nContent-Length: 4\r\n\r\nbody")
        except OSError:
            pass
        finally:
            s.close()


def play(load, stop_s, refuse, scale):
    folder = pathlib.Path(tempfile.mkdtemp(dir=load.folder))
    server = Stopping(stop_s, refuse, scale)
    (folder / "paths").write_text("/one\n")
    try:
        with Disturbance() as seen:
            r = Load(load.sluice, folder)(scenario(scale), server.url, "--paths", folder / "paths", timeout=400)
    finally:
        server.close()
    return judged(stop_s, refuse, scale, r), max(seen.late_s, max(r.hdr["lag"], default=0) / 1e6) > LATE_S


def judged(stop_s, refuse, scale, r):
    """What a run is to show: [(whether it does, what it is, what was seen)]."""
    does = f"{'refuses' if refuse else 'stops'} for {stop_s} s"
    c = r.json["capacity"]
    got = c["recovery_s"]
    found = c["found"] and c["spike_rate"] > SPIKE / scale and c["base_rate"] < SPIKE / scale / 2
    out = [(found, f"a server that {does}: a limit and a spike beyond it", f"{c} {r}")]
    if stop_s == math.inf:
        good = got == -1 and "not in time again before the run ended" in r.out.decode()
        return out + [(found and good, "a server that never answers again: no recovery, and it says so", f"{c} {r.out.decode()}")]
    # The server sees that the spike is over up to WINDOW_S after it; what was due up to LEVEL_S before the stop ends is in
    # time; and the answer counts in whole windows of 0.1 s, however slow all else is.
    low, high = max(0, stop_s - (0 if refuse else LEVEL_S) - WINDOW_S) * scale, (stop_s + WINDOW_S + 0.15) * scale + 0.1
    return out + [(found and low <= got <= high, f"a server that {does} after a spike: recovered in time", f"{got}, not {low:.2f} to {high:.2f} s, {scale} times slower: {c}")]


def main():
    tap, sluice = Tap(), sys.argv[1]
    stops = [(0, False), (1, False), (2.5, False), (math.inf, False), (1, True)]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work, concurrent.futures.ThreadPoolExecutor(len(stops)) as pool:
        load, seen, again = Load(sluice, work), {}, range(len(stops))
        for scale in SCALES:
            for n, (cases, disturbed) in zip(again, pool.map(lambda n: play(load, *stops[n], scale), again)):
                seen[n] = cases, disturbed and not all(good for good, _, _ in cases)
            again = [n for n in seen if seen[n][1]]
        for cases, _ in seen.values():
            for case in cases:
                tap.ok(*case)
    tap.end()


if __name__ == "__main__":
    main()
