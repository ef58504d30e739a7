"""Rounds of measurements and the decision on them: the part of the gate that a replay of recorded rounds shares with a real run.

A round is {metric: [base, head, base again]}. `Book` keeps them with the metrics' bounds; `run` asks a source for rounds, look
by look, until the decision stands."""
import math

import decide

BASE, HEAD, SAME = range(3)


class Book:
    def __init__(self):
        self.bounds, self.units, self.exact, self.values = {}, {}, {}, {}

    def metric(self, name, bound, unit, exact=False):
        self.bounds[name], self.units[name], self.exact[name] = bound, unit, exact
        self.values.setdefault(name, [])

    def add(self, values):
        for name, triple in values.items():
            self.values[name].append(triple)

    def metrics(self):
        out = []
        for name, triples in self.values.items():
            if triples:  # HEAD is held against both measurements of BASE: a quarter less variance for nothing
                out.append(decide.Metric(name, self.bounds[name], self.exact[name], [(math.sqrt(t[BASE] * t[SAME]), t[HEAD]) for t in triples],
                                         [(t[BASE], t[SAME]) for t in triples]))
        return out

    def timed(self):
        return [n for n in self.values if not self.exact[n]]

    def as_json(self):
        return [dict(name=n, bound=self.bounds[n], unit=self.units[n], exact=self.exact[n], rounds=self.values[n]) for n in self.values if self.values[n]]

    def left_out(self):
        """The metrics that no round brought: one of the commits has no such benchmark."""
        return [n for n, triples in self.values.items() if not triples]


def from_json(rows):
    book = Book()
    for r in rows:
        book.metric(r["name"], r["bound"], r["unit"], r["exact"])
        book.values[r["name"]] = [tuple(t) for t in r["rounds"]]
    return book


def run(book, take, may_go_on=lambda: True):
    """Calls take(names) for a round of the metrics `names`, all at first, then those that are undecided, until decide() has an
    answer or `may_go_on` says that the time is up. Returns (state, verdicts)."""
    names, state, verdicts = book.timed(), "more", []
    for look in decide.LOOKS:
        while names and len(book.values[names[0]]) < look:
            if look != decide.LOOKS[0] and not may_go_on():
                return ("green" if state == "more" else state), verdicts
            book.add(take(names))
            names = [n for n in names if book.values[n]]  # what only one side has comes in no round
        state, verdicts = decide.decide(book.metrics())
        if state != "more":
            break
        names = [v.name for v in verdicts if v.state == "undecided"]
    return state, verdicts


def settle(book):
    """The decision on what there is: nothing more will be taken."""
    state, verdicts = decide.decide(book.metrics())
    return ("green" if state == "more" else state), verdicts
