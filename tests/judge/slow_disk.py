"""Storage that stands still on demand: tests/server/slow_disk.c in front of the C library."""
import os
import pathlib

from judge.programs import run

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "server" / "slow_disk.c"


def slow_disk(tap, work):
    """(environment, file): a disk that stands still while the file is there. The environment is None where it cannot be built."""
    shim, still = work / "slow_disk.so", work / "still"
    p = run("gcc", "-shared", "-fPIC", "-O1", "-o", shim, SOURCE)
    if not tap.equal(p.code, 0, "a disk that stands still on demand is built"):
        return None, still
    asan = ":".join(x for x in (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0") if x)
    tsan = ":".join(x for x in (os.environ.get("TSAN_OPTIONS"), "report_thread_leaks=0") if x)  # who is not waited for leaves threads
    return {**os.environ, "LD_PRELOAD": str(shim), "SLOW_DISK": str(still), "ASAN_OPTIONS": asan, "TSAN_OPTIONS": tsan}, still
