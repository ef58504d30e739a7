"""What the gate serves: synthesised AAC tracks of pseudo-random bytes, the same in every run. Two assets of 2 s fragments
(32 KB a segment) and two of 6 s fragments (189 KB), about 40 MB: more than any cache below L3 holds, made in a second."""
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from judge import synth  # noqa: E402

SHAPES = {"32K": (94, 344, 300), "189K": (282, 670, 60)}  # samples a fragment, bytes a sample on average, fragments
COPIES = 2


def make(folder):
    """Returns {size: [path of every segment, without the scheme: (asset, number)]}."""
    out = {}
    for size, (samples, mean, fragments) in SHAPES.items():
        out[size] = []
        for copy in range(COPIES):
            asset = f"gate/{size}/{copy}"
            path = Path(folder) / asset / "a.mp4"
            path.parent.mkdir(parents=True)
            rng = random.Random(asset)
            with open(path, "wb") as f:
                f.write(synth.FTYP + synth.moov())
                for n in range(fragments):
                    payloads = [rng.randbytes(rng.randint(mean - mean // 3, mean + mean // 3)) for _ in range(samples)]
                    f.write(synth.plain_fragment(n + 1, payloads, n * samples * synth.FRAME))
            out[size] += [(asset, n + 1) for n in range(fragments)]
        out[size].sort(key=lambda segment: segment[1])  # the copies take turns
    return out
