"""Test Anything Protocol, so that meson counts every case."""
import sys
import threading


class Tap:
    def __init__(self):
        self.count = self.failed = 0
        self.lock = threading.Lock()
        self.held = None  # a list: lines are kept there (judge/disturbed.py)

    def line(self, good, name, suffix="", note=""):
        with self.lock:
            if self.held is not None:
                self.held.append((good, name, suffix, note))
                return
            self.count += 1
            self.failed += not good
            name = name.replace("#", "no.").replace("\n", " ")
            print(f"{'ok' if good else 'not ok'} {self.count} - {name}{suffix}")
            for line in str(note).splitlines() if note and not good else []:
                print(f"# {line}")
            sys.stdout.flush()

    def ok(self, good, name, note=""):
        """One case; `note` is shown when it fails."""
        self.line(bool(good), name, note=note)
        return bool(good)

    def equal(self, got, want, name):
        return self.ok(got == want, name, f"got  {got!r:.2000}\nwant {want!r:.2000}")

    def skip(self, name, reason):
        self.line(True, name, f" # SKIP {reason}")

    def note(self, text):
        with self.lock:
            for line in str(text).splitlines():
                print(f"# {line}")

    def end(self):
        """Prints the plan and ends the program. A run without a case is a failure."""
        print(f"1..{self.count}")
        sys.stdout.flush()
        sys.exit(1 if self.failed or not self.count else 0)
