"""What of the machine decides a figure and is neither server's: how far core 1 is from core 0, and settings of the kernel."""
import contextlib, subprocess
from pathlib import Path

import versions

FAR = 2.0  # times the nearest that the cores were in a run


def apart_ns():
    """Nanoseconds of copying 32 KB to where core 1 has just read: what a server's copy into its socket meets. Virtual cores are moved by their
    host, between measurements too: some 3.4 us when both lie behind one L3 cache, 14 us when not (AMD EPYC, Zen 4)."""
    program = versions.built("bench/serve/copy")
    if not program.exists():
        raise SystemExit(f"bench serve: {program} is not there: run tools/bench serve, or ninja -C build-release bench/serve/copy bench/serve/unread.so")
    return float(subprocess.run([program, "apart"], check=True, capture_output=True, text=True).stdout)


def path_of(name):
    return Path("/proc/sys") / name.replace(".", "/")


@contextlib.contextmanager
def settings(wanted):
    """Sets each NAME=VALUE of `wanted` as sysctl(8) would, and what was there before at the end."""
    before = {}
    try:
        for setting in wanted:
            name, _, value = setting.partition("=")
            try:
                was = path_of(name).read_text()
                path_of(name).write_text(value)
            except OSError as e:
                raise SystemExit(f"bench serve: --sysctl {setting}: {e.strerror}: {path_of(name)}") from None
            before.setdefault(name, was)
        yield
    finally:
        for name, was in before.items():
            path_of(name).write_text(was)


# Those that decide what a copy into a socket costs here (docs/internals/hot-path.md).
SAID = ("vm.percpu_pagelist_high_fraction", "net.core.skb_defer_max")


def said():
    """{name: value} of the kernel's settings that a run names, as far as this kernel has them."""
    return {name: path_of(name).read_text().strip() for name in SAID if path_of(name).exists()}
