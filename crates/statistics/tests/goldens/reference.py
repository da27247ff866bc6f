"""What scipy and statsmodels do not have, or not to 1e-9: written from the formulas, exact or with mpmath."""

import bisect
import math
from fractions import Fraction

import mpmath as mp
import numpy as np
from scipy import special, stats

mp.mp.dps = 80
MASK = (1 << 64) - 1


def exact_mean(x):
    return sum(map(Fraction, x)) / len(x)


def exact_squares(x):
    mean = exact_mean(x)
    return sum((Fraction(v) - mean) ** 2 for v in x)


def root(fraction):
    return mp.sqrt(mp.mpf(fraction.numerator) / fraction.denominator)


def nct_cdf(t, df, ncp):
    """Guenther's series (Lenth 1989, AS 243), and far from zero the integral over the normal variable."""
    t, df, ncp = mp.mpf(t), mp.mpf(df), mp.mpf(ncp)
    if t < 0:
        return 1 - nct_cdf(-t, df, -ncp)
    if abs(ncp) > 120:
        if ncp < 0:
            return mp.mpf(1)
        with mp.workdps(30):
            inner = lambda z: mp.npdf(z) * mp.gammainc(df / 2, df / 2 * ((z + ncp) / t) ** 2, regularized=True)
            return mp.quad(inner, mp.linspace(-13, 13, 27))
    x, half = t * t / (df + t * t), df / 2
    below = mp.ncdf(-ncp)
    if t == 0:
        return below
    lam = ncp * ncp / 2
    p = mp.exp(-lam) / 2
    q = ncp / mp.sqrt(2) * mp.exp(-lam) / mp.gamma(mp.mpf(3) / 2) / 2
    odd = mp.betainc(mp.mpf(1) / 2, half, 0, x, regularized=True)
    even = 1 - (1 - x) ** half
    step_odd = x ** mp.mpf("0.5") * (1 - x) ** half / (mp.mpf("0.5") * mp.beta(mp.mpf("0.5"), half))
    step_even = x * (1 - x) ** half / mp.beta(1, half)
    total = mp.mpf(0)
    for j in range(1_000_000):
        term = p * odd + q * even
        total += term
        if j > lam and abs(term) < mp.mpf(10) ** -70:
            break
        odd -= step_odd
        even -= step_even
        a, b = j + mp.mpf("0.5"), mp.mpf(j + 1)
        step_odd *= x * (a + half) / (a + 1)
        step_even *= x * (b + half) / (b + 1)
        p *= lam / (j + 1)
        q *= lam / (j + mp.mpf(3) / 2)
    return below + total


def nct_interval(t, df, level):
    tail = mp.mpf(1 - level) / 2
    spread = float(mp.sqrt(1 + t * t / (2 * df)))

    def solve(goal, start):
        x0, x1 = mp.mpf(start), mp.mpf(start) + spread / 8
        f0, f1 = (special.ndtri(float(nct_cdf(t, df, x))) for x in (x0, x1))
        goal_z = special.ndtri(goal)
        for _ in range(6):
            if f1 == f0:
                break
            x0, x1, f0 = x1, x1 + mp.mpf((goal_z - f1) / (f1 - f0)) * (x1 - x0), f1
            f1 = special.ndtri(float(nct_cdf(t, df, x1)))
            if abs(x1 - x0) < 1e-4 * spread:
                break
        # The last digits without the detour over f64.
        for _ in range(8):
            with mp.workdps(40):
                g0, g1 = nct_cdf(t, df, x0) - goal, nct_cdf(t, df, x1) - goal
                if g1 == g0:
                    break
                x0, x1 = x1, x1 - g1 * (x1 - x0) / (g1 - g0)
            if abs(x1 - x0) < mp.mpf(10) ** -15 * max(abs(x1), mp.mpf("1e-3")):
                break
        return x1

    z = spread * 1.96
    return solve(1 - float(tail), t - z), solve(float(tail), t + z)


class Xoshiro256:
    """xoshiro256**, filled by SplitMix64."""

    def __init__(self, seed):
        self.s = []
        for _ in range(4):
            seed = (seed + 0x9E3779B97F4A7C15) & MASK
            z = ((seed ^ seed >> 30) * 0xBF58476D1CE4E5B9) & MASK
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
            self.s.append(z ^ z >> 31)

    def next(self):
        s = self.s
        left = lambda x, k: (x << k | x >> (64 - k)) & MASK
        result = left(s[1] * 5 & MASK, 7) * 9 & MASK
        shifted = s[1] << 17 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = left(s[3], 45)
        return result

    def below(self, n):
        return self.next() * n >> 64


def bootstrap(a, b, statistic, resamples, level, seed):
    if statistic == "difference_of_means":
        figure = lambda x: sum(map(Fraction, x)) / len(x)
    else:
        figure = lambda x: Fraction(float(np.median(x)))
    value = lambda x, y: float(figure(y) - figure(x))
    random = Xoshiro256(seed)
    drawn = []
    for _ in range(resamples):
        x = [a[random.below(len(a))] for _ in a]
        y = [b[random.below(len(b))] for _ in b]
        drawn.append(value(x, y))
    drawn.sort()
    estimate = value(a, b)
    tail = (1 - level) / 2
    percentile = [float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))]
    parts = []
    for x, sign in ((a, -1), (b, 1)):
        without = [figure(x[:i] + x[i + 1:]) for i in range(len(x))]
        mean = sum(without) / len(without)
        parts += [sign * (len(x) - 1) * (mean - w) / len(x) for w in without]
    squares = sum(p * p for p in parts)
    below, up_to = bisect.bisect_left(drawn, estimate), bisect.bisect_right(drawn, estimate)
    share = (below + up_to) / (2 * resamples)
    bca = None
    if squares > 0 and 0 < share < 1 and not (below == 0 and up_to == resamples):
        acceleration = float(sum(p ** 3 for p in parts)) / (6 * float(squares) ** 1.5)
        bias = special.ndtri(share)

        def at(z):
            shifted = bias + z
            return float(np.quantile(drawn, special.ndtr(bias + shifted / (1 - acceleration * shifted))))

        bca = [at(special.ndtri(tail)), at(-special.ndtri(tail))]
    return {"statistic": statistic, "estimate": estimate, "percentile": percentile, "bca": bca,
            "level": level, "resamples": resamples, "seed": seed}


def mann_kendall(x):
    n = len(x)
    s = sum(int(np.sign(x[j] - x[i])) for i in range(n) for j in range(i + 1, n))
    ties = [x.count(v) for v in set(x)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    z = (s - np.sign(s)) / math.sqrt(variance)
    tau = stats.kendalltau(range(n), x).statistic
    return {"s": s, "tau": tau, "variance": variance, "z": z, "p": 2 * stats.norm.sf(abs(z))}


def lag1(x):
    n, mean = len(x), exact_mean(x)
    d = [Fraction(v) - mean for v in x]
    r = sum(p * q for p, q in zip(d, d[1:])) / sum(v * v for v in d)
    z = float(r + Fraction(1, n)) / ((n - 2) / (n * math.sqrt(n - 1)))
    return {"r": float(r), "z": z, "p": 2 * stats.norm.sf(abs(z))}


def linear_fit(x, y):
    n, mx, my = len(x), exact_mean(x), exact_mean(y)
    slope = sum((Fraction(u) - mx) * (Fraction(v) - my) for u, v in zip(x, y)) / exact_squares(x)
    intercept = my - slope * mx
    residuals = [Fraction(v) - intercept - slope * Fraction(u) for u, v in zip(x, y)]
    total = exact_squares(y)
    squares = sum(r * r for r in residuals)
    return {"slope": float(slope), "intercept": float(intercept),
            "residual_sd": float(root(squares / (n - 2))) if n > 2 else None,
            "max_residual": float(max(abs(r) for r in residuals)),
            "r2": float(1 - squares / total) if total else None, "n": n}
