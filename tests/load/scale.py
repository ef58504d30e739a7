#!/usr/bin/env python3
"""Many listeners in one process: what each costs. And the log of a run by another reader: scale.py SLUICE"""
import math
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.load import Load, keys_text, media  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BOUND = 2048  # bytes of user memory a listener, verification included

READER = """
import json, sys
from hdrh.log import HistogramLogReader
from hdrh.histogram import HdrHistogram
out = {}
reference = HdrHistogram(1, 3600000000, 3)
reader = HistogramLogReader(sys.argv[1], reference)
while True:
    h = reader.get_next_interval_histogram()
    if h is None:
        break
    counts = {int(i.value_iterated_to): i.count_added_in_this_iter_step for i in h.get_recorded_iterator()}
    out[h.get_tag()] = dict(total=h.get_total_count(), counts=counts)
print(json.dumps(out))
"""


def scenario(listeners, seconds=4):
    """All arrive in a second and play on."""
    return f"""name: scale
seed: 9
arrivals: [{{ for: 1s, rate: {listeners} }}]
drain: {seconds - 1}s
catalogue: {{ assets: [one, two] }}
scheme: cenc
player: {{ ahead: 1, tracks: 2, skip: 0 }}
max_listeners: {2 * listeners}
verify: {{ share: 100%, media: media, keys: keys.yaml }}
level: {{ errors: 0, lag_p99_ms: 60000 }}
"""


def memory(tap, load, server):
    few, many = (load(scenario(n), f"http://127.0.0.1:{server.port}") for n in (150, 1650))
    for r in (few, many):
        if not tap.ok(r.code == 0 and r.json["totals"]["verified"] >= r.json["totals"]["sessions"], "every listener's segments are compared", r.out.decode()):
            return
    f, m = few.json["totals"], many.json["totals"]
    tap.ok(m["peak_active"] > f["peak_active"] + 1300, "they are there at once", (f["peak_active"], m["peak_active"]))
    each = (m["grown_bytes"] - f["grown_bytes"]) / (m["peak_active"] - f["peak_active"])
    tap.note(f"{each:.0f} bytes a listener")
    name = f"user memory a listener, with 100 % verification: at most {BOUND} bytes"
    if sanitized(load.sluice):
        tap.skip(name, "AddressSanitizer keeps freed memory back")
    else:
        tap.ok(each <= BOUND, name, each)
    tap.ok(m["bytes_per_listener"] > 0, "the report says how much it was", m)


def sanitized(program):
    return b"__asan_init" in pathlib.Path(program).read_bytes()


def places(tap, load, server):
    """max_listeners is for all processes together; who finds no place makes the run invalid."""
    text = re.sub(r"max_listeners: .*", "max_listeners: 10", scenario(60, 2))
    r = load(text, f"http://127.0.0.1:{server.port}", "--processes", "3")
    t = r.json["totals"]
    tap.ok(r.code == 3 and t["peak_active"] == 10 and t["sessions"] - t["sessions_lost"] >= 10 < t["sessions_lost"] and "raise max_listeners" in r.out.decode(),
           "more listeners than places, over three processes: status 3, and what to raise", f"{t} {r}")


def other_reader(tap, load, server):
    """The HdrHistogram log read by the hdrhistogram package from PyPI."""
    python = subprocess.run([ROOT / "tools" / "python"], capture_output=True, text=True)
    if python.returncode:
        tap.skip("HdrHistogram's own reader", (python.stderr.strip().splitlines() or ["tools/python fails"])[-1])
        return
    r = load(scenario(100, 2), f"http://127.0.0.1:{server.port}", "--processes", "2")
    done = subprocess.run([python.stdout.strip().splitlines()[-1], "-c", READER, r.files["hdr"]], capture_output=True, text=True)
    if not tap.ok(done.returncode == 0, "HdrHistogram's own reader takes the log", done.stderr):
        return
    import json
    theirs = json.loads(done.stdout)
    tap.equal(sorted(theirs), ["lag", "latency", "service", "startup"], "every tag is read")
    for tag, h in theirs.items():
        ours = {us: n for us, n in r.hdr[tag].items()}
        # Theirs names the highest value of a bucket, ours the lowest; counts stand in the same order.
        tap.equal([n for _, n in sorted((int(k), n) for k, n in h["counts"].items())], [n for _, n in sorted(ours.items())], f"{tag}: the same counts")
        tap.ok(all(lo <= int(hi) for lo, hi in zip(sorted(ours), sorted(h["counts"], key=int))), f"{tag}: in the same places")
        tap.equal(h["total"], r.json[tag]["count"], f"{tag}: the same total")
        for p in (50, 99):
            said, rank = dict(r.json[tag]["percentiles_us"])[p], math.ceil(p * h["total"] / 100)
            values = sorted(int(us) for us, n in h["counts"].items() for _ in range(n))
            tap.ok(0 <= values[rank - 1] - said <= values[rank - 1] // 1000 + 1, f"{tag}: p{p} is what {rank} of {h['total']} are not above", f"{said}, theirs {values[rank - 1]}")


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ["one", "two"])
        (folder / "keys.yaml").write_text(keys_text(["one", "two"]))
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(["one", "two"])) as server:
            memory(tap, load, server)
            places(tap, load, server)
            other_reader(tap, load, server)
    tap.end()


if __name__ == "__main__":
    main()
