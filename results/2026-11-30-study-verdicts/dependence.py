"""How often pairs of runs in the order A B B A are called different at 0.05: by the paired t test and by spark-trace's rule.

    python dependence.py [STUDIES]      # 20000 of each scenario, seeded

Needs numpy and scipy. The rule is that of crates/statistics/src/dependence.rs, written again for many studies at once.
"""

import sys

import numpy as np
from scipy import stats

STUDIES = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000


def order(n):
    """Whether each run is of B."""
    return np.array([(turn + round_) % 2 == 1 for round_ in range(n) for turn in (0, 1)])


def autoregression(rng, n, r, started=True):
    noise = rng.standard_normal((STUDIES, n))
    x = noise.copy()
    if started:
        x[:, 0] /= np.sqrt(1 - r * r)
    for i in range(1, n):
        x[:, i] += r * x[:, i - 1]
    return x


def lag1(x):
    n, left = x.shape[1], x - x.mean(1, keepdims=True)
    r = (left[:, 1:] * left[:, :-1]).sum(1) / (left * left).sum(1)
    return r, (r + 1 / n) / ((n - 2) / (n * np.sqrt(n - 1)))


def above_noise(r, n):
    return np.where(r > 0, np.maximum(r - (1 - r * r) / (n * np.where(r > 0, r, 1)), 0), 0)


def by_order(a, b):
    n = a.shape[1]
    of_b, left = order(n), np.empty((len(a), 2 * n))
    left[:, ~of_b], left[:, of_b] = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    r = np.minimum(above_noise(lag1(left)[0] + 1 / (2 * n), 2 * n), 0.9)
    before, square = np.zeros(len(a)), np.zeros(len(a))
    for sign in np.where(of_b, 1.0, -1.0):
        square += sign * (sign + 2 * before)
        before = r * (before + sign)
    of_mean = square / n ** 2
    estimated = n / (n - 1) * (2 - 2 * r - of_mean)
    return np.maximum(n * of_mean / estimated, 1)


def without_shared(a, b):
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    aa, bb, ab = (a * a).sum(1), (b * b).sum(1), (a * b).sum(1)
    part = above_noise(ab / np.sqrt(aa * bb), a.shape[1]) * np.sqrt(aa * bb)
    return a - (part / bb)[:, None] * b, b - (part / aa)[:, None] * a


def of_mean_of(r, n):
    lags = np.arange(1, n)
    of_mean = 1 + 2 * ((1 - lags / n) * r[:, None] ** lags).sum(1)
    return of_mean * (n - 1) / (n - of_mean)


def plain(a, b):
    return stats.ttest_rel(a, b, axis=1).pvalue


def rule(a, b):
    n, d = a.shape[1], b - a
    larger, df = by_order(a, b), np.full(len(a), n - 1.0)
    if n >= 5:
        own = without_shared(a, b)
        (r_a, z_a), (r_b, z_b), (r_d, _) = lag1(own[0]), lag1(own[1]), lag1(d)
        squares = np.maximum(z_a, 0) ** 2 + np.maximum(z_b, 0) ** 2
        p = stats.chi2.sf(squares, 1) / 2 + stats.chi2.sf(squares, 2) / 4
        on = (squares > 0) & (p < 0.1 * min(n / 30, 1))
        at_most = lambda r: np.clip((r[on] + 1 / n) / (1 - 4 / n) + np.sqrt((1 - r[on] ** 2) / n) / 2, 0, 0.9)
        of_a, of_b = ((side[on] ** 2).sum(1) for side in own)
        both = (of_a * of_mean_of(at_most(r_a), n) + of_b * of_mean_of(at_most(r_b), n)) / (of_a + of_b)
        larger[on] = np.maximum(larger[on], np.maximum(both, of_mean_of(at_most(r_d), n)))
        df[on] = np.maximum(n / larger[on] - 1, 1)
    t = d.mean(1) / (d.std(1, ddof=1) / np.sqrt(n) * np.sqrt(larger))
    return 2 * stats.t.sf(np.abs(t), df)


def none(rng, n):
    return rng.standard_normal((2, STUDIES, n))


def all_runs(r):
    def runs(rng, n):
        x, of_b = autoregression(rng, 2 * n, r, started=False), order(n)
        return x[:, ~of_b], x[:, of_b]
    return runs


def within(r_a, r_b):
    return lambda rng, n: (autoregression(rng, n, r_a), autoregression(rng, n, r_b))


def shared_noise(rng, n):
    shared = 2 * rng.standard_normal((STUDIES, n))
    return shared + rng.standard_normal((STUDIES, n)), shared + autoregression(rng, n, 0.5)


SCENARIOS = [(f"no effect, {n} rounds", n, none, 0) for n in (3, 5, 10, 30)]
SCENARIOS += [(f"autocorrelation {r} of all runs, 30 rounds", 30, all_runs(r), 0) for r in (-0.3, 0.2, 0.3, 0.5, 0.7)]
SCENARIOS += [(f"{r} within both environments, 30 rounds", 30, within(r, r), 0) for r in (0.2, 0.3, 0.5, 0.7, 0.9)]
SCENARIOS += [(f"{r} within B alone, 30 rounds", 30, within(0, r), 0) for r in (0.3, 0.5, 0.7, 0.9)]
SCENARIOS += [(f"{r_a} and {r_b} within A and B, {n} rounds", n, within(r_a, r_b), 0)
              for n in (10, 20, 60) for r_a, r_b in ((0.3, 0.3), (0, 0.5))]
SCENARIOS += [("0.5 within B and more noise that both share, 30 rounds", 30, shared_noise, 0)]
SCENARIOS += [(f"effect 5 % ({sd} %), {n} rounds", n, none, 5 / sd) for n, sd in ((5, 2), (10, 4), (20, 6), (30, 6), (30, 8), (30, 10))]

print("| scenario | paired t test | rule |\n|---|--:|--:|")
for seed, (name, n, runs, effect) in enumerate(SCENARIOS):
    a, b = runs(np.random.default_rng(seed), n)
    shares = (100 * np.mean(test(a, b + effect) < 0.05) for test in (plain, rule))
    print("| {} | {:.1f} | {:.1f} |".format(name, *shares), flush=True)
