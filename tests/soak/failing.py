"""Storage that is slow or fails, and calls that do: failing_calls.c in front of the C library, switched on and off while a program runs."""
import os
import pathlib
import random
import resource
import struct
import threading

from judge import shim

# As in `enum kind`; how many of a million calls fail at most, when they do.
KINDS = {"read": 60000, "short": 200000, "slow": 900000, "open": 60000, "folder": 60000, "log": 200000, "store": 200000, "sync": 200000,
         "send": 30000, "part": 200000, "receive": 30000, "wait": 100000, "slow_ms": 0}
ON_S, OFF_S, SLOW_MS, DESCRIPTORS_S = 1.2, 0.6, (10, 300, 1500), 0.4


class Failing:
    """`broken` says why there is none. `begin` is called before anything fails, `end` once nothing does."""

    def __init__(self, work, seed, begin, end, note):
        self.library, self.file, self.begin, self.end, self.note = work / "failing_calls.so", work / "failing", begin, end, note
        self.file.write_bytes(bytes(8 * len(KINDS)))
        self.broken = shim.build(pathlib.Path(__file__).with_name("failing_calls.c"), self.library)
        self.environment = {"LD_PRELOAD": str(self.library), "FAULTS": str(self.file), "FAULTS_SEED": str(random.Random(seed).randrange(1 << 31))}
        self.rng, self.stop, self.pid = random.Random(f"{seed}/failing"), threading.Event(), 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def set(self, rates):
        with open(self.file, "r+b") as f:  # in place: it is mapped
            f.write(struct.pack(f"{len(KINDS)}I", *(rates.get(k, 0) for k in KINDS)))

    def failed(self):
        """How many calls of each kind have."""
        return dict(zip(KINDS, struct.unpack(f"{len(KINDS)}I", self.file.read_bytes()[4 * len(KINDS):])))

    def halves(self):
        """How many calls of storage, and of connections."""
        failed = self.failed()
        return [sum(failed[k] for k in half) for half in (("read", "short", "open", "folder"), ("send", "part", "receive", "wait"))]

    def _out_of_descriptors(self):
        """Really so, since a ring accepts by itself."""
        _, most = limit = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{self.pid}/fd")) + self.rng.randrange(3), most))
        self.stop.wait(self.rng.random() * DESCRIPTORS_S)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, limit)

    def _run(self):
        while not self.stop.is_set():
            kinds = self.rng.sample(list(KINDS), self.rng.choice([1, 3, 6, len(KINDS)]))
            rates = {k: int(KINDS[k] * self.rng.random()) for k in kinds}
            rates["slow_ms"] = self.rng.choice(SLOW_MS)
            self.begin()
            self.note(f"fail: {rates}")
            self.set(rates)
            try:
                if self.rng.random() < 0.2:
                    self._out_of_descriptors()
                self.stop.wait(self.rng.random() * ON_S)
            except (ProcessLookupError, FileNotFoundError):
                return
            finally:
                self.set({})
                self.note("nothing fails")
                self.end()
            self.stop.wait(self.rng.random() * OFF_S)
