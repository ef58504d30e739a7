"""Cases about time, on a machine that does other things too: what it did to them is measured, and what it did not touch counts."""
import os
import threading
import time

TRIES = 6


class Disturbance:
    """How late one who sleeps wakes, at the most, on any CPU that is ours, of 16, for as long as it is used with `with`."""

    def __enter__(self):
        self.late_s, self.over = 0.0, threading.Event()
        self.threads = [threading.Thread(target=self._watch, args=(cpu,)) for cpu in sorted(os.sched_getaffinity(0))[:16]]
        for thread in self.threads:
            thread.start()
        return self

    def _watch(self, cpu):
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        before, over = time.monotonic(), False
        while not over:
            over, now = self.over.wait(0.01), time.monotonic()
            self.late_s, before = max(self.late_s, now - before - 0.01), now

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def undisturbed(tap, late_s, case, *args):
    """Runs case(*args), which tells `tap`. Where something in it fails, or it raises, and the machine was later than `late_s` meanwhile
    it is done again, a few times at the most: what was told last counts. Cases may be done more than once. Not for faults that a
    machine's pause could bring out."""
    for left in reversed(range(TRIES)):
        tap.held = held = []
        raised, over = None, False
        try:
            with Disturbance() as seen:
                case(*args)
            over = True
        except Exception as e:
            raised, over = e, True
        finally:  # also when it is ended from outside
            tap.held = None
            failed = [f"{name}: {note}" for good, name, _, note in held if not good] + ([repr(raised)] if raised else [])
            again = over and failed and seen.late_s > late_s and left
            if not again:
                for line in held:
                    tap.line(*line)
        if raised and not again:
            raise raised
        if not again:
            return
        tap.note(f"{case.__name__}: again, the machine was {seen.late_s:.2f} s late: " + "\n".join(failed))
