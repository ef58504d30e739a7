"""Storage that stands still on demand: tests/server/slow_disk.c in front of the C library."""
import os
import pathlib

from judge import shim

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "server" / "slow_disk.c"


def slow_disk(tap, work):
    """(environment, file): a disk that stands still while the file is there. The environment is None where it cannot be built."""
    library, still = work / "slow_disk.so", work / "still"
    if not tap.equal(shim.build(SOURCE, library), "", "a disk that stands still on demand is built"):
        return None, still
    tsan = ":".join(x for x in (os.environ.get("TSAN_OPTIONS"), "report_thread_leaks=0") if x)  # who is not waited for leaves threads
    return shim.preloaded(library, SLOW_DISK=str(still), TSAN_OPTIONS=tsan), still
