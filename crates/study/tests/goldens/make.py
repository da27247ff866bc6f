"""Writes studies.json, a study's results of 72 data sets, and wanted.json, what a report must say of them.

The files at hand were made with Python 3.11, numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0 and mpmath 1.4.1:

    python make.py

Figures are those of scipy and statsmodels; where these have none they are from the formulas (here, or in reference.py of
the crate of statistics). A data set is a model. Common offsets are taken away, exactly, before scipy sees the values.
"""

import json
import math
import os
import sys
import warnings
from fractions import Fraction

import numpy as np
from scipy import optimize, stats
from scipy.stats import mstats
from statsmodels.stats import multitest, power as sm_power, weightstats

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../../statistics/tests/goldens"))
import reference as ref  # noqa: E402

warnings.simplefilter("ignore")
rng = np.random.default_rng(20261130)
RESAMPLES, SEED, MARGIN = 400, 1, 0.02
ALL = (30, 60)


def ar(n, r):
    x = [rng.normal()]
    for _ in range(n - 1):
        x.append(r * x[-1] + math.sqrt(1 - r * r) * rng.normal())
    return np.array(x)


# --- the data: name, A, B, offset, rounds or not -------------------------------------------------------------------

sets = []


def add(name, a, b, offset=0.0, paired=True, lost=()):
    a, b = ([float(offset + v) for v in side] for side in (a, b))
    sets.append({"name": name, "a": a, "b": b, "offset": float(offset), "paired": paired, "lost": sorted(lost)})


grid = lambda n, sd: np.round(rng.normal(0, sd, n) * 1024) / 1024
for paired in (True, False):
    kind = "pairs" if paired else "runs"
    n2 = lambda n: n if paired else n + 3
    for n in (3, 4, 5, 8, 10, 13, 14, 30, 50, 51, 120):
        add(f"{kind}-normal-{n}", rng.normal(100, 4, n), rng.normal(103, 4, n2(n)), paired=paired)
    for n in (6, 12, 30):
        add(f"{kind}-lognormal-{n}", rng.lognormal(1, 0.5, n), rng.lognormal(1.2, 0.5, n2(n)), paired=paired)
        add(f"{kind}-cauchy-{n}", 100 + rng.standard_cauchy(n), 101 + rng.standard_cauchy(n2(n)), paired=paired)
        add(f"{kind}-ties-{n}", rng.integers(5, 12, n), rng.integers(6, 14, n2(n)), paired=paired)
        add(f"{kind}-spread-{n}", rng.normal(100, 0.01, n), rng.normal(104, 30, n2(n)), paired=paired)
    wild = rng.normal(103, 1, 30)
    wild[11] = 40.0
    add(f"{kind}-outlier", rng.normal(100, 1, 30), wild, paired=paired)
    add(f"{kind}-offset", grid(30, 2), grid(30, 2) + 0.5, 1e12, paired)
    add(f"{kind}-steps", rng.integers(0, 64, 30) * 2.0 ** -50, rng.integers(0, 64, 30) * 2.0 ** -50, 1.0, paired)
    add(f"{kind}-large", rng.integers(-4, 5, 30), rng.integers(-4, 5, 30), 1e15, paired)
    add(f"{kind}-small", 1e-15 * rng.normal(30, 1, 20), 1e-15 * rng.normal(31, 1, 20), paired=paired)
    add(f"{kind}-huge-effect", rng.normal(100, 1e-4, 25), rng.normal(200, 1e-4, 25), paired=paired)
    add(f"{kind}-close", (x := rng.normal(100, 3, 40)), np.roll(x, 1) + 1e-3, paired=paired)
    add(f"{kind}-negative", rng.normal(-30, 4, 17), rng.normal(-33, 4, 17), paired=paired)
    add(f"{kind}-around-zero", rng.normal(0.5, 1, 24), rng.normal(0.2, 1, 24), paired=paired)
    add(f"{kind}-bimodal", rng.choice([90, 110], 20) + rng.normal(0, 1, 20), rng.normal(101, 9, 20), paired=paired)
for r in (0.3, 0.6, 0.9):
    common = ar(30, 0.5)
    add(f"pairs-dependent-{r}", 100 + common, 101 + common + ar(30, r))
for lost in ((3,), (1, 7, 8, 20), (2, 5, 9, 11, 14, 19, 23, 28)):
    b = rng.normal(112, 4, 30)
    add(f"pairs-lost-{len(lost)}", rng.normal(100, 4, 30), b, lost=lost)

# --- what they must come to ----------------------------------------------------------------------------------------


# The rounds that pairs are of, from 0, where some are lost.
kept = None


def at_lag1(values):
    """r and z of values that vary; 0 of others."""
    if len(set(values)) < 2:
        return 0.0, 0.0
    found = ref.lag1(list(map(float, values)))
    return float(found["r"]), float(found["z"])


def above_noise(r, n):
    """A positive correlation without what chance makes, the square of which is 1/n on average."""
    return max(r - (1 - r * r) / (n * r), 0.0) if r > 0 else 0.0


def of_mean_of(n, r):
    """The variance of the mean of an autoregression over what the variance of its n values suggests."""
    at = np.arange(n)
    of_mean = np.mean(r ** np.abs(at[:, None] - at[None, :]))
    return n * of_mean / (n / (n - 1) * (1 - of_mean))


def of_environments(left_x, left_y, d):
    """r, the factor and what r is of, where the environments' own runs depend on each other."""
    n, scale = len(d), max(np.abs(left_x).max(), np.abs(left_y).max())
    if n < 5 or scale == 0:
        return None
    x, y = left_x / scale, left_y / scale
    own = [x, y]
    correlation = np.corrcoef(x, y)[0, 1] if x.any() and y.any() else 0.0
    if correlation > 0 and (certain := above_noise(correlation, n) / correlation) > 0:
        own = [x - certain * np.cov(x, y)[0, 1] / np.var(y, ddof=1) * y, y - certain * np.cov(x, y)[0, 1] / np.var(x, ddof=1) * x]
    found = [at_lag1(side) for side in own]
    squares = sum(max(z, 0) ** 2 for _, z in found)
    p = stats.chi2.sf(squares, 1) / 2 + stats.chi2.sf(squares, 2) / 4
    if squares == 0 or p >= 0.1 * min(n / 30, 1):
        return None
    at_most = lambda r: min(max((r + 1 / n) / (1 - 4 / n) + math.sqrt((1 - r * r) / n) / 2, 0.0), 0.9)
    r_x, r_y = (at_most(r) if side.any() else 0.0 for side, (r, _) in zip(own, found))
    both = np.average([of_mean_of(n, r_x), of_mean_of(n, r_y)], weights=[np.sum(side ** 2) for side in own])
    r = at_most(at_lag1(d)[0])
    return max((both, max(r_x, r_y), "environments"), (of_mean_of(n, r), r, "differences"))


def dependence(x, y):
    """What pairs have in common in the order x y, y x, x y, ...: r, the factor of the variance, what r is of, and df."""
    n, d = len(x), y - x
    rounds = kept or range(n)
    if len(set(d)) == 1:
        return 0.0, 1.0, "runs", n - 1.0
    left_x, left_y = (np.array([v - mean(side) for v in side]) for side in (x, y))
    sides = [(v, -1.0) for v in left_x], [(v, 1.0) for v in left_y]
    order = [side[i] for i in range(n) for side in (sides if rounds[i] % 2 == 0 else sides[::-1])]
    values, sign = np.array([v for v, _ in order]), np.array([s for _, s in order])
    r = min(above_noise(at_lag1(values)[0] + 1 / (2 * n), 2 * n), 0.9) if len(set(values)) > 1 else 0.0
    at = np.arange(2 * n)
    matrix = r ** np.abs(at[:, None] - at[None, :])
    of_mean = sign @ matrix @ sign / n ** 2
    # The two runs of a pair are next to each other.
    estimated = n / (n - 1) * (2 - 2 * r - of_mean)
    larger = max(n * of_mean / estimated, 1.0)
    own = of_environments(left_x, left_y, d)
    if own is None:
        return r, larger, "runs", n - 1.0
    if own[0] > larger:
        larger, r, of = own
    else:
        of = "runs"
    return r, larger, of, max(n / larger - 1, 1.0)


def mean(x):
    return float(ref.exact_mean(list(map(float, x))))


def test_of(x, y, paired):
    """t, df, difference and standard error of the test that is used."""
    if paired:
        d = y - x
        _, larger, _, df = dependence(x, y)
        se = stats.sem(d) * math.sqrt(larger)
        return mean(d) / se, df, mean(d), se
    test = stats.ttest_ind(y, x, equal_var=False)
    difference = float(ref.exact_mean(list(map(float, y))) - ref.exact_mean(list(map(float, x))))
    return float(test.statistic), float(test.df), difference, difference / float(test.statistic)


def tost_p(x, y, paired, margin):
    _, df, difference, se = test_of(x, y, paired)
    if paired and dependence(x, y)[1::2] == (1, len(x) - 1):
        theirs = weightstats.ttost_paired(y, x, -margin, margin)[0]
        assert math.isclose(theirs, max(stats.t.sf((difference + margin) / se, df),
                                        stats.t.sf((margin - difference) / se, df)), rel_tol=1e-8)
    return float(max(stats.t.sf((difference + margin) / se, df), stats.t.sf((margin - difference) / se, df)))


def ratio(x, y, paired):
    """The ratios that the test of y - ratio x does not reject, found by scipy's root finder on its own p."""
    # The variance of dependent pairs is that of the difference, so the factor is the same at each ratio.
    _, larger, _, of_pairs = dependence(x, y) if paired else (0.0, 1.0, "", 0.0)
    factor = math.sqrt(larger)

    def t(rho):
        if paired:
            return stats.ttest_1samp(y - rho * x, 0).statistic / factor, of_pairs
        test = stats.ttest_ind(y, rho * x, equal_var=False)
        return test.statistic, test.df

    def beyond(rho):
        statistic, df = t(rho)
        return abs(statistic) - stats.t.isf(0.025, df)

    value = mean(y) / mean(x)
    ends = []
    for side in (-1, 1):
        step = abs(value) * 1e-7
        while beyond(value + side * step) < 0 and step < 1e3 * abs(value):
            step *= 2
        if beyond(value + side * step) < 0:
            return None
        ends.append(optimize.brentq(beyond, value + side * step / 2, value + side * step, xtol=1e-300, rtol=1e-15)
                    if step > abs(value) * 1e-7 else None)
    return None if None in ends else {"value": value, "ci": ends}


def place(ways, tail):
    total, below, k = sum(ways), Fraction(0), 0
    for way in ways:
        below += Fraction(way, total)
        if below > Fraction(tail):
            return k
        k += 1


def times(a, b):
    out = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def shift(x, y, paired):
    if paired:
        d = y - x
        n = len(d)
        i, j = np.triu_indices(n)
        all_of = np.sort((d[i] + d[j]) / 2)
        if n <= 50:
            ways = [1]
            for rank in range(1, n + 1):
                ways = times(ways, [1] + [0] * (rank - 1) + [1])
            k = place(ways, 0.025)
        else:
            k = math.floor(n * (n + 1) / 4 + 0.5 - stats.norm.isf(0.025) * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    else:
        all_of = np.sort((y[:, None] - x[None, :]).ravel())
        n, m = len(x), len(y)
        # Exact where the number of arrangements fits 128 bits.
        if math.comb(n + m, n) * n < 2 ** 128:
            # Arrangements by U: the recurrence of Mann and Whitney (1947).
            table = {}
            for i in range(n + 1):
                for j in range(m + 1):
                    if i == 0 or j == 0:
                        table[i, j] = [1]
                        continue
                    one, other = [0] * j + table[i - 1, j], table[i, j - 1]
                    size = max(len(one), len(other))
                    table[i, j] = [(one[u] if u < len(one) else 0) + (other[u] if u < len(other) else 0)
                                   for u in range(size)]
            k = place(table[n, m], 0.025)
        else:
            k = math.floor(n * m / 2 + 0.5 - stats.norm.isf(0.025) * math.sqrt(n * m * (n + m + 1) / 12))
    if not k or k < 1:
        return None
    return {"estimate": float(np.median(all_of)), "ci": [float(all_of[k - 1]), float(all_of[-k])]}


def trimmed(x, y, paired):
    if not paired:
        test = stats.ttest_ind(y, x, equal_var=False, trim=0.2)
        difference = float(stats.trim_mean(y, 0.2) - stats.trim_mean(x, 0.2))
        se = difference / float(test.statistic)
        half = stats.t.isf(0.025, test.df) * se
        return {"difference": difference, "p": float(test.pvalue), "df": float(test.df),
                "ci": [difference - half, difference + half]}
    d = y - x
    out = int(0.2 * len(d))
    left = len(d) - 2 * out
    winsorised = np.asarray(mstats.winsorize(d, limits=(0.2, 0.2)))
    squares = float(ref.exact_squares(list(map(float, winsorised))))
    if squares == 0 or left < 2:
        return None
    se = math.sqrt(squares / (left * (left - 1)))
    difference = float(stats.trim_mean(d, 0.2))
    half = stats.t.isf(0.025, left - 1) * se
    return {"difference": difference, "p": float(2 * stats.t.sf(abs(difference / se), left - 1)), "df": left - 1.0,
            "ci": [difference - half, difference + half]}


def bootstrap(x, y, paired):
    if not paired:
        found = ref.bootstrap(list(map(float, x)), list(map(float, y)), "difference_of_medians", RESAMPLES, 0.95, SEED)
        return {k: found[k] for k in ("estimate", "percentile", "bca")}
    d = list(map(float, y - x))
    random = ref.Xoshiro256(SEED)
    drawn = sorted(float(np.median([d[random.below(len(d))] for _ in d])) for _ in range(RESAMPLES))
    estimate = float(np.median(d))
    percentile = [float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))]
    without = [Fraction(float(np.median(d[:i] + d[i + 1:]))) for i in range(len(d))]
    centre = sum(without) / len(without)
    parts = [float(centre - w) for w in without]
    below, up_to = sum(v < estimate for v in drawn), sum(v <= estimate for v in drawn)
    share, squares = (below + up_to) / (2 * RESAMPLES), sum(p * p for p in parts)
    bca = None
    if squares > 0 and 0 < share < 1 and not (below == 0 and up_to == RESAMPLES):
        acceleration = sum(p ** 3 for p in parts) / (6 * squares ** 1.5)
        bias = stats.norm.ppf(share)

        def at(z):
            shifted = bias + z
            return float(np.quantile(drawn, stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))))

        bca = [at(stats.norm.ppf(0.025)), at(stats.norm.ppf(0.975))]
    return {"estimate": estimate, "percentile": percentile, "bca": bca}


def wanted(data):
    global kept
    keep = kept = [i for i in range(len(data["a"])) if not data["paired"] or i + 1 not in data["lost"]]
    offset, paired = data["offset"], data["paired"]
    x = np.array(data["a"] if not paired else [data["a"][i] for i in keep]) - offset
    y = np.array(data["b"] if not paired else [data["b"][i] for i in keep]) - offset
    t, df, difference, se = test_of(x, y, paired)
    half = stats.t.isf(0.025, df) * se
    margin = abs(offset + mean(x)) * MARGIN
    pooled = (ref.exact_squares(list(map(float, x))) + ref.exact_squares(list(map(float, y)))) / (len(x) + len(y) - 2)
    d = float(ref.exact_mean(list(map(float, y))) - ref.exact_mean(list(map(float, x)))) / float(ref.root(pooled))
    welch, student = stats.ttest_ind(y, x, equal_var=False), stats.ttest_ind(y, x)
    out = {
        "a.n": len(x), "b.n": len(y), "a.mean": float(offset + mean(x)), "b.mean": float(offset + mean(y)),
        "a.sd": float(np.std(x, ddof=1)), "b.median": float(np.median(y) + offset),
        "difference": difference, "ci": [difference - half, difference + half],
        "p": float(2 * stats.t.sf(abs(t), df)), "margin": margin, "equivalence.p": tost_p(x, y, paired, margin),
        "welch.statistic": float(welch.statistic), "welch.df": float(welch.df), "welch.p": float(welch.pvalue),
        "student.p": float(student.pvalue), "cohen_d.value": d,
        "mann_whitney.p": float(stats.mannwhitneyu(x, y).pvalue),
        "brown_forsythe.p": float(stats.levene(x, y, center="median").pvalue),
        "shift": shift(x, y, paired), "trimmed": trimmed(x, y, paired), "bootstrap": bootstrap(x, y, paired),
    }
    for side, values in (("a", x), ("b", y)):
        if len(set(values)) > 1:
            out[f"shapiro_{side}.p"] = float(stats.shapiro(values).pvalue)
    if paired:
        diff = y - x
        dz = mean(diff) / float(ref.root(ref.exact_squares(list(map(float, diff))) / (len(diff) - 1)))
        out |= {"paired.p": float(stats.ttest_rel(y, x).pvalue), "cohen_dz.value": dz,
                "wilcoxon.p": float(stats.wilcoxon(diff).pvalue), "dependence": dict(zip(("r", "larger", "of", "df"), dependence(x, y))),
                "shapiro_differences.p": float(stats.shapiro(diff).pvalue)}
        if abs(dz) < 30 and dz != 0:
            out["power"] = float(ref.mp.mpf(1) - ref.nct_cdf(stats.t.isf(0.025, len(x) - 1), len(x) - 1, dz * math.sqrt(len(x)))
                                 + ref.nct_cdf(-stats.t.isf(0.025, len(x) - 1), len(x) - 1, dz * math.sqrt(len(x))))
            theirs = sm_power.TTestPower().power(dz, len(x), 0.05)
            assert np.isnan(theirs) or math.isclose(theirs, out["power"], rel_tol=1e-7), (data["name"], theirs)
            solved = np.atleast_1d(sm_power.TTestPower().solve_power(abs(dz), power=0.8, alpha=0.05))[0]
            if 3 < solved < 1e6 and math.isclose(sm_power.TTestPower().power(dz, solved, 0.05), 0.8, rel_tol=1e-6):
                out["n_for_080"] = math.ceil(solved)
    elif abs(d) < 30 and len(x) == len(y):
        out["power"] = float(sm_power.TTestIndPower().power(d, len(x), 0.05))
    if offset == 0:
        found = ratio(x, y, paired)
        if found:
            out["ratio.value"], out["ratio.ci"] = found["value"], found["ci"]
    kept = None
    if data["lost"]:
        out |= {f"bounds.{k}": v for k, v in bounds(data).items()}
        out["unpaired"] = len(data["lost"])
    return out


def bounds(data):
    """The paired test with the smallest and the largest value in place of those that are lost."""
    kept_b = [v for i, v in enumerate(data["b"]) if i + 1 not in data["lost"]]
    least, most = min(data["a"] + kept_b), max(data["a"] + kept_b)
    ends = []
    for value in (least, most):
        y = np.array([value if i + 1 in data["lost"] else v for i, v in enumerate(data["b"])])
        t, df, difference, _ = test_of(np.array(data["a"]), y, True)
        ends.append((difference, float(2 * stats.t.sf(abs(t), df))))
    one_side = ends[0][0] > 0 or ends[1][0] < 0
    return {"least": least, "most": most, "low": ends[0][0], "high": ends[1][0],
            "p": max(ends[0][1], ends[1][1]) if one_side else 1.0,
            "failures_p": float(stats.fisher_exact([[0, 30], [len(data["lost"]), 30 - len(data["lost"])]]).pvalue)}


results = {data["name"]: wanted(data) for data in sets}
names = list(results)
p = [results[name]["p"] for name in names]
for key, method in (("p_holm", "holm"), ("p_bonferroni", "bonferroni")):
    for name, value in zip(names, multitest.multipletests(p, method=method)[1]):
        results[name][key] = float(value)
for name, value in zip(names, multitest.multipletests([results[n]["equivalence.p"] for n in names], method="holm")[1]):
    results[name]["equivalence_p"] = float(value)
for data in sets:
    keep = kept = [i for i in range(len(data["a"])) if not data["paired"] or i + 1 not in data["lost"]]
    x, y = ([data[s][i] - data["offset"] for i in keep] if data["paired"] else [v - data["offset"] for v in data[s]]
            for s in "ab")
    _, df, difference, se = test_of(np.array(x), np.array(y), data["paired"])
    half = stats.t.isf(0.05 / len(sets) / 2, df) * se
    results[data["name"]]["ci_simultaneous"] = [difference - half, difference + half]
kept = None

# An exploratory metric of the first models, for the false discovery rate.
second, first_ones = {}, [d for d in sets if d["name"].startswith("pairs-normal")]
for data in first_ones:
    second[data["name"]] = (list(map(float, rng.normal(200, 5, len(data["a"])))),
                            list(map(float, rng.normal(203, 5, len(data["b"])))))
p = []
for x, y in second.values():
    t, df, _, _ = test_of(np.array(x), np.array(y), True)
    p.append(float(2 * stats.t.sf(abs(t), df)))
rates = dict(zip(second, map(float, multitest.multipletests(p, method="fdr_bh")[1])))

# --- the study -----------------------------------------------------------------------------------------------------

runs, number = [], 0
for data in sets:
    count = max(len(data["a"]), len(data["b"]))
    for i in range(count):
        sides = [("native", "a"), ("docker", "b")]
        for environment, side in sides if i % 2 == 0 else sides[::-1]:
            if i >= len(data[side]):
                continue
            number += 1
            run = {"number": number, "environment": environment, "model": data["name"], "iteration": i + 1,
                   "metrics": {"output-throughput": data[side][i]}}
            if data["name"] in second:
                run["metrics"]["gpu-power"] = second[data["name"]]["ab".index(side)][i]
            if data["paired"]:
                run["round"] = i + 1
            if side == "b" and i + 1 in data["lost"]:
                run["failure"], run["metrics"] = "killed", {}
            runs.append(run)
study = {"schema": "spark-trace/study", "schema_version": 1, "name": "goldens", "origin": {"kind": "simulated"},
         "environments": ["native", "docker"], "models": names, "order": None, "runs": runs}


def strict(value):
    json.dumps(value, allow_nan=False)
    return value


with open(os.path.join(HERE, "studies.json"), "w") as out:
    out.write(json.dumps(strict({k: v for k, v in study.items() if k != "runs"}), separators=(",", ":"))[:-1])
    out.write(',"runs":[\n' + ",\n".join(json.dumps(strict(r), separators=(",", ":")) for r in runs) + "\n]}\n")
with open(os.path.join(HERE, "wanted.json"), "w") as out:
    rows = [f'{json.dumps(name)}:{json.dumps(strict(results[name]), separators=(",", ":"))}' for name in names]
    out.write('{"models":{\n' + ",\n".join(rows) + '\n},\n"rates":' + json.dumps(strict(rates)) + "}\n")
print(len(sets), "data sets,", sum(map(len, results.values())), "figures")
