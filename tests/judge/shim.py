"""Libraries in front of the C library, for programs that may have a sanitizer in them."""
import os

from judge.programs import run


def build(source, library):
    """"", or why it cannot be built."""
    p = run("gcc", "-shared", "-fPIC", "-O1", "-o", library, source)
    return p.err or "gcc failed" if p.code else ""


def preloaded(library, **more):
    """The environment with it."""
    asan = ":".join(x for x in (os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0") if x)
    return {**os.environ, "LD_PRELOAD": str(library), "ASAN_OPTIONS": asan, **more}
