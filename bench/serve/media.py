"""The media that bench/serve serves: one AAC track with 2 s fragments at 128 kb/s (32 KB segments), one with
6 s fragments at 256 kb/s (189 KB), ten minutes each, in eight copies with different bytes, so that no cache level
below L3 holds what is being served. Made once with ffmpeg and kept."""
import subprocess
from pathlib import Path

COPIES = 4
SHAPES = {"32K": (128, 2), "189K": (256, 6)}  # kb/s, seconds per fragment
SECONDS = 600


def make(work: Path, sluice: Path):
    """Returns {size: [asset name, …]} under work/media; writes what is missing."""
    root = work / "media"
    out = {}
    for size, (kbps, frag_s) in SHAPES.items():
        out[size] = []
        for i in range(COPIES):
            asset = f"bench/{size}/{i}"
            path = root / asset / "a.mp4"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                tmp = path.with_suffix(".tmp.mp4")
                # noise over a chord: an encoder at a constant rate has to spend its bits
                src = f"aevalsrc='0.2*sin({200 + 30 * i}*2*PI*t)+0.5*(random({i})-0.5)|0.2*sin({300 + 30 * i}*2*PI*t)+0.5*(random({i + 9})-0.5)':s=48000:d={SECONDS}"
                subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", src, "-c:a", "aac", "-b:a", f"{kbps}k",
                                "-movflags", "empty_moov+default_base_moof+skip_trailer", "-frag_duration", str(frag_s * 1000000), str(tmp)], check=True)
                tmp.rename(path)
            out[size].append(asset)
    subprocess.run([str(sluice), "index", str(root)], check=True, stdout=subprocess.DEVNULL)
    return out


def fragments(path: Path):
    """[(offset of moof, its length, payload offset, payload length)] of a file whose every moof is followed by its mdat."""
    data = path.read_bytes()
    at, out, moof = 0, [], None
    while at + 8 <= len(data):
        n, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        if kind == b"moof":
            moof = (at, n)
        elif kind == b"mdat" and moof:
            out.append((*moof, at + 8, n - 8))
            moof = None
        at += n
    return out
