#!/usr/bin/env python3
"""Runs small loads and lets Chromium look at their reports: report.py SLUICE [FOLDER for pictures]"""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from judge.load import Load, keys_text, media  # noqa: E402
from judge.programs import run  # noqa: E402
from judge.server import Server  # noqa: E402

ASSETS = ["coastline/first-light", "coastline/low-tide"]
LEVEL = "level: { startup_p99_ms: 300, latency_p99_ms: 20, errors: 0, lag_p99_ms: 5000 }\n"


def listeners(name, rate, seconds):
    return f"""name: "{name}"
seed: 8
arrivals: [{{ for: {seconds}s, rate: [{rate / 10}, {rate}] }}, {{ for: {seconds}s, rate: {rate} }}, {{ for: {seconds}s, rate: [{rate}, 0] }}]
drain: {seconds}s
catalogue: {{ assets: [{", ".join(ASSETS)}], release_share: 60% }}
scheme: cbcs
player: {{ ahead: 2, tracks: 2 }}
verify: {{ share: 100%, media: media, keys: keys.yaml }}
{LEVEL}"""


CAPACITY = f"""name: capacity
seed: 3
mode: capacity
search: {{ from: 100, to: 400000, probes: PROBES, spike: 2, spike_for: SPIKE }}
seconds: SECONDS
drain: 500ms
connections: 32
catalogue: {{ assets: [{ASSETS[0]}] }}
scheme: cbcs
{LEVEL}"""


def main():
    sluice, pictures = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    subprocess.run([HERE / "../../tools/npm"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(prefix="sluice-report-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ASSETS)
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(ASSETS)) as server:
            target = f"http://127.0.0.1:{server.port}"
            seconds = 5 if pictures else 1
            # A name that would end the script, were it not written with care.
            a = load(listeners("quiet day </script><b>", 40, seconds), target)
            b = load(listeners("release day", 400, seconds), target, "--processes", "2")
            how = ("14", "1s", "1s") if pictures else ("12", "400ms", "500ms")
            for level in (20, 200, 1000):  # a machine that does other things has no capacity within 20 ms
                c = load(CAPACITY.replace("PROBES", how[0]).replace("SPIKE", how[1]).replace("SECONDS", how[2]).replace("latency_p99_ms: 20", f"latency_p99_ms: {level}"), target)
                if c.json["capacity"]["found"]:
                    break
        # A result of somewhere else is text, whatever is in it; one of a run that asked nothing has no rate.
        strange = json.loads(a.files["json"].read_text())
        strange.update(mode="<img src=x onerror=document.title=1>", scenario="<!--<script>", valid=False)
        strange["totals"].update(first_wrong="/a/<b>1.m4s: byte 3", elapsed_s=0, requests=0)
        (folder / "strange.json").write_text(json.dumps(strange))
        made = run(sluice, "load", "--report", folder / "strange.html", folder / "strange.json")
        if made.code:
            print(f"Bail out! --report: {made}")
            return 1
        both = folder / "both.html"
        made = run(sluice, "load", "--report", both, a.files["json"], b.files["json"])
        if made.code:
            print(f"Bail out! --report: {made}")
            return 1
        pages = [f"single={b.files['html']}", f"two={both}", f"capacity={c.files['html']}", f"strange={folder / 'strange.html'}"]
        return subprocess.run(["node", HERE / "report.mjs", pictures, *pages]).returncode


if __name__ == "__main__":
    sys.exit(main())
