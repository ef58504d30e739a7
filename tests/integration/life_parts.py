"""What the parts of life.py share: media, and metrics as they are read."""
import re
import time

from judge import synth

ASSET = "bear"


def media_with(work, build=synth.indexed):
    media = work / "media"
    (media / ASSET).mkdir(parents=True)
    (media / ASSET / "a.mp4").write_bytes(build()[0])
    return media


def listing(folder):
    """Every file below a folder with content and mtime, sidecars left out."""
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*"))
            if p.is_file() and p.suffix != ".slx"}


def parse_metrics(text):
    """{name: {labels: value}} of Prometheus text; raises on anything malformed."""
    out, kinds, seen = {}, {}, []
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, *rest = line.split(" ", 3)
            if word == "TYPE":
                if name in kinds:
                    raise ValueError(f"two TYPE lines for {name}")
                kinds[name] = rest[0]
            continue
        m = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)', line)
        if not m:
            raise ValueError(f"line {line!r}")
        name, labels, value = m.groups()
        family = next((f for f in (name, re.sub(r"_(bucket|sum|count|total)$", "", name)) if f in kinds), None)
        if family is None:
            raise ValueError(f"{name} has no TYPE")
        if not seen or seen[-1] != family:
            if family in seen:
                raise ValueError(f"{family} is not in one group")
            seen.append(family)
        series = out.setdefault(name, {})
        if labels in series:
            raise ValueError(f"{line!r} stands twice")
        series[labels] = float(value)
    for family, kind in kinds.items():
        if kind == "histogram":
            check_histogram(out, family)
        if kind == "counter" and not family.endswith("_total"):
            raise ValueError(f"counter {family} does not end in _total")
    return out


def check_histogram(series, family):
    groups = {}
    for labels, value in series[family + "_bucket"].items():
        le = re.search(r'le="([^"]+)"', labels).group(1)
        rest = re.sub(r',?le="[^"]+"', "", labels).strip(",")
        groups.setdefault(rest, []).append((float(le.replace("+Inf", "inf")), value))
    for rest, buckets in groups.items():
        buckets.sort()
        values = [v for _, v in buckets]
        if values != sorted(values) or buckets[-1][0] != float("inf"):
            raise ValueError(f"{family}: buckets do not add up")
        count = [v for k, v in series[family + "_count"].items() if (k or "").strip(",") == rest]
        if count != [values[-1]]:
            raise ValueError(f"{family}: count {count} is not the last bucket {values[-1]}")


def total(metrics, name, *labels):
    return sum(v for k, v in metrics.get(name, {}).items() if all(l in (k or "") for l in labels))


def await_metrics(server, good, timeout=10):
    """The metrics once they are `good`, or after that time as they are: a response is counted when it is out, a moment after its client has it."""
    end = time.monotonic() + timeout
    while not good(m := parse_metrics(server.admin("/metrics").body.decode())) and time.monotonic() < end:
        time.sleep(0.05)
    return m
