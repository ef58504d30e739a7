#!/usr/bin/env python3
"""Runs a program where io_uring is forbidden, as container runtimes do it with seccomp: NO_URING=PROGRAM:ERRNO no_uring.py ARGUMENT...
With FORBID=NUMBER that system call instead."""
import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425  # on every architecture
LOAD_WORD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06  # of BPF
ERRNO, ALLOW = 0x00050000, 0x7fff0000             # seccomp(2)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2


def install(*rules):
    code = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    text = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), "no seccomp filter")


def forbid(errno, call=IO_URING_SETUP):
    install((LOAD_WORD, 0, 0, 0), (JUMP_EQUAL, 0, 1, call), (RETURN, 0, 0, ERRNO | errno), (RETURN, 0, 0, ALLOW))


if __name__ == "__main__":
    program, _, number = os.environ["NO_URING"].rpartition(":")
    forbid(int(number), int(os.environ.get("FORBID", IO_URING_SETUP)))
    os.execv(program, [program, *sys.argv[1:]])
