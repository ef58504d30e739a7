#!/usr/bin/env python3
"""The example of docs/library.md: what it writes is what `sluice encrypt` writes, but for the sidx. library_page.py EXAMPLE SLUICE"""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.programs import Sluice, run  # noqa: E402
from judge.tap import Tap  # noqa: E402


def main():
    tap, example, sluice = Tap(), sys.argv[1], Sluice(sys.argv[2])
    with tempfile.TemporaryDirectory() as tmp:
        clear, out, want = (pathlib.Path(tmp) / name for name in ("clear.mp4", "out.mp4", "want.mp4"))
        clear.write_bytes(synth.indexed()[0])
        r = run(example, clear, out)
        tap.ok(r.code == 0, "docs/library.md: the example runs", r)
        made = sluice.encrypt(clear, want, "cbcs", *(byte + 30 * "0" for byte in ("11", "22", "33")))
        whole = want.read_bytes() if made.code == 0 else b""
        at = whole.find(b"sidx") - 4
        tap.ok(at > 0 and out.read_bytes() == whole[:at] + whole[at + int.from_bytes(whole[at:at + 4], "big"):], "and gives the bytes of encrypt", made)
        clear.write_bytes(b"no MP4 file")
        r = run(example, clear, out)
        tap.ok(r.code == 1 and "MP4" in r.err, "and says what is wrong", r)
    tap.end()


main()
