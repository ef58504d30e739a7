"""What the parts of command.py share."""
import errno
import os
import platform

from judge import no_uring

KID, KEY, IV = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100", "0102030405060708"
ENCRYPT = ["--scheme", "cenc", "--kid", KID, "--key", KEY]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def one_line(r):
    return r.err.startswith("sluice") and r.err.strip().count("\n") == 0


# System calls by number, where they are known.
CALLS = {"x86_64": {"openat": 257, "rename": 82, "fchown": 93}, "aarch64": {"openat": 56, "rename": 38, "fchown": 55}}.get(platform.machine(), {})


def no_nameless_files():
    """As NFS and FUSE have it: openat with O_TMPFILE among its flags, its third argument, fails."""
    no_uring.install((no_uring.LOAD_WORD, 0, 0, 0), (no_uring.JUMP_EQUAL, 0, 3, CALLS["openat"]), (no_uring.LOAD_WORD, 0, 0, 32),
                     (no_uring.JUMP_SET, 0, 1, os.O_TMPFILE & ~os.O_DIRECTORY),
                     (no_uring.RETURN, 0, 0, no_uring.ERRNO | errno.EOPNOTSUPP), (no_uring.RETURN, 0, 0, no_uring.ALLOW))
