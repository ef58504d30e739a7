"""A wall clock that a program believes in, set forward and back while it runs: shifted_clock.c in front of the C library."""
import pathlib
import struct
import time

from judge import shim


class Clock:
    """`broken` says why there is none."""

    def __init__(self, work):
        self.library, self.file, self.shift_ms = work / "clock.so", work / "clock", 0
        self.file.write_bytes(bytes(8))
        self.broken = shim.build(pathlib.Path(__file__).with_name("shifted_clock.c"), self.library)
        self.environment = {"LD_PRELOAD": str(self.library), "CLOCK_SHIFT": str(self.file)}

    def now(self):
        return time.time() + self.shift_ms / 1000

    def move(self, ms):
        self.shift_ms += ms
        with open(self.file, "r+b") as f:  # in place: it is mapped
            f.write(struct.pack("<q", self.shift_ms))
