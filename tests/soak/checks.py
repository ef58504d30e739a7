"""What both soaks look at from outside, and how they tell what is wrong."""
import collections
import os
import pathlib
import re
import threading
import time

FAULTS_SHOWN, FAULTS_MOST = 12, 12
SANITIZER = re.compile(r"(?:ERROR|WARNING): \w+Sanitizer|runtime error:|Assertion .* failed")


class Faults:
    """What was found wrong. Enough of it ends the run. `log`, where there is one, gives the lines of the server's log."""

    def __init__(self, tap):
        self.tap, self.lock, self.found, self.events = tap, threading.Lock(), [], collections.deque(maxlen=25)
        self.enough, self.log = threading.Event(), list

    def note(self, text):
        self.events.append(f"{time.monotonic():.3f} {text}")

    def __call__(self, text):
        with self.lock:
            self.found.append(text)
            if len(self.found) <= FAULTS_SHOWN:
                self.tap.note(f"FAULT at {time.monotonic():.3f}: {text}\n  last events:\n    " + "\n    ".join([*list(self.events)[-8:], *self.log()[-12:]]))
            if len(self.found) >= FAULTS_MOST:
                self.enough.set()


def descriptors(pid):
    out = collections.Counter()
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            out[re.sub(r"\d+", "N", os.readlink(fd))] += 1
        except OSError:
            pass
    return out


def settled(true, seconds):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def sanitized(binary):
    data = pathlib.Path(binary).read_bytes()
    return b"__asan_init" in data or b"__tsan_init" in data
