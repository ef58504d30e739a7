"""Does HEAD cost more than BASE? The decision, apart from any measuring.

Input: for every metric, paired measurements (base, head) taken next to each other, lower is better; and pairs of BASE
against a second build of BASE, the A/A canary.

Rule. The log ratios of the pairs go through Wilcoxon's signed-rank test (exact, one-sided, from scipy). A metric is
*slower* when its corrected p is below ALPHA and the median ratio is beyond its bound: both, so that a tiny but certain
change and a large but uncertain one are not red. Correction: Holm over the metrics, times the number of looks (the data
are looked at after 16 and after 32 pairs). A metric that is neither clearly slower nor clearly inside its bound asks for more
pairs. When the canary fires by the same rule, in either direction, the machine is telling lies: the run is *inconclusive*,
never red for what was timed. Counts (`exact`) need no test and no canary: beyond their bound they are red.
"""
import math
from dataclasses import dataclass, field

from scipy.stats import wilcoxon

ALPHA = 0.01
LOOKS = (16, 32)


@dataclass
class Metric:
    name: str
    bound: float  # 0.02: a median 2 % above BASE is too much
    exact: bool = False  # instruction counts: one pair says it all, no test
    pairs: list = field(default_factory=list)  # (base, head)
    canary: list = field(default_factory=list)  # (base, base again)


@dataclass
class Verdict:
    name: str
    state: str  # "ok", "slower", "undecided"
    ratio: float  # median head / base
    p: float  # corrected, one-sided
    bound: float
    num_pairs: int
    low: float = math.nan  # 95 % interval of the median ratio, by order statistics
    high: float = math.nan


def log_ratios(pairs):
    return [math.log(h / b) for b, h in pairs]


def median(values):
    s = sorted(values)
    n = len(s)
    return (s[n // 2] + s[(n - 1) // 2]) / 2


def interval(values, level=0.95):
    """Order-statistic confidence interval of a median."""
    s, n = sorted(values), len(values)
    k = 0
    while k < n // 2 and 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n <= 1 - level:
        k += 1
    k = max(k - 1, 0)
    return s[k], s[n - 1 - k]


def p_slower(pairs):
    """One-sided p of "head costs more"; 1 when nothing differs."""
    d = [x for x in log_ratios(pairs) if x != 0]
    if len(d) < 6:  # below six pairs no outcome reaches 0.01
        return 1.0
    return float(wilcoxon(d, alternative="greater", method="exact" if len(d) <= 50 else "approx").pvalue)


def p_differs(pairs):
    """Two-sided."""
    return min(1.0, 2 * min(p_slower(pairs), p_slower([(h, b) for b, h in pairs])))


def holm(ps):
    """Holm's step-down correction, in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    out, worst = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, ps[i] * (len(ps) - rank)))
        out[i] = worst
    return out


def verdicts(metrics, num_looks=len(LOOKS)):
    sampled = [m for m in metrics if not m.exact]
    corrected = dict(zip((m.name for m in sampled), holm([min(1.0, p_slower(m.pairs) * num_looks) for m in sampled])))
    out = []
    for m in metrics:
        data = m.pairs
        if m.exact:
            ratio = data[-1][1] / data[-1][0] if data else 1.0
            out.append(Verdict(m.name, "slower" if ratio > 1 + m.bound else "ok", ratio, 0.0 if ratio > 1 + m.bound else 1.0, m.bound, len(data), ratio, ratio))
            continue
        logs = log_ratios(data)
        mid, p = median(logs), corrected[m.name]
        low, high = interval(logs)
        limit = math.log1p(m.bound)
        if p < ALPHA and mid > limit:
            state = "slower"
        elif high <= limit or mid <= limit / 2:
            state = "ok"
        else:
            state = "undecided"
        out.append(Verdict(m.name, state, math.exp(mid), p, m.bound, len(data), math.exp(low), math.exp(high)))
    return out


def canary_fires(metrics):
    """Names of the metrics on which BASE differs from BASE, by the rule for HEAD but in either direction."""
    sampled = [m for m in metrics if not m.exact and m.canary]
    corrected = holm([min(1.0, p_differs(m.canary) * len(LOOKS)) for m in sampled])
    return [m.name for m, p in zip(sampled, corrected) if p < ALPHA and abs(median(log_ratios(m.canary))) > math.log1p(m.bound)]


def decide(metrics):
    """("green" | "red" | "inconclusive" | "more", verdicts). "more": take pairs up to the next look."""
    vs = verdicts(metrics)
    exact = {m.name for m in metrics if m.exact}
    if any(v.state == "slower" and v.name in exact for v in vs):
        return "red", vs
    if canary_fires(metrics):
        return "inconclusive", vs
    done = max((len(m.pairs) for m in metrics if not m.exact), default=LOOKS[-1]) >= LOOKS[-1]
    if any(v.state == "slower" for v in vs):
        return "red", vs
    if any(v.state == "undecided" for v in vs) and not done:
        return "more", vs
    return "green", vs


def among_others(state, metrics, vs):
    """What is left of a decision when other programs disturbed too many samples: counts, and nothing that was timed."""
    exact = {m.name for m in metrics if m.exact}
    return state if state == "red" and any(v.state == "slower" and v.name in exact for v in vs) else "inconclusive"
