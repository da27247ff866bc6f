"""Writes goldens.json: samples, and what each function of the crate must make of them.

The file at hand was made with Python 3.11, numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0 and mpmath 1.4.1:

    python make.py        (in an environment with these; some minutes)

Figures are those of scipy and statsmodels; where these have none, or lose digits, they are from the formulas, exact
or with mpmath (reference.py). Samples with a large offset are given to scipy without it where the figure does not
depend on it: the offset is subtracted exactly, and what is left does not lose the digits that the test asks for.
"""

import json
import math
import os
import warnings

import numpy as np
from scipy import special, stats
from statsmodels.stats import multitest, power as sm_power, weightstats

import reference as ref

warnings.simplefilter("ignore")
rng = np.random.default_rng(20250611)
samples, offsets, cases = {}, {}, []


def short(x, digits=6):
    """Samples with few digits: the file stays small, and ties are real."""
    return [float(f"{v:.{digits}g}") for v in np.asarray(x, dtype=float)]


def sample(name, values, offset=0.0):
    values = [float(v) for v in values]
    samples[name], offsets[name] = [offset + v for v in values], offset
    assert all((offset + v) - offset == v for v in values), name
    return name


def case(f, want, **given):
    json.dumps(want, allow_nan=False)
    cases.append({"f": f, **given, "want": want})


def fails(f, error, **given):
    case(f, {"error": error}, **given)


def plain(*names):
    """The samples without the offset that they share."""
    return [np.array(samples[n]) - offsets[n] for n in names]


# --- samples -----------------------------------------------------------------------------------------------------

def pair(name, a, b, offset=0.0):
    return sample(name + ".a", a, offset), sample(name + ".b", b, offset)


grid = lambda n, sd: np.round(rng.normal(0, sd, n) * 1024) / 1024

PAIRS = [
    pair("n2", [1.5, 2.25], [3.0, 3.125]),
    pair("n2_n5", [10.0, 11.5], short(rng.normal(12, 2, 5))),
    pair("n3", [0.1, 0.2, 0.4], [0.3, 0.5, 0.6]),
    pair("n4", short(rng.normal(5, 1, 4)), short(rng.normal(6, 1, 4))),
    pair("n5", short(rng.normal(100, 5, 5)), short(rng.normal(104, 5, 5))),
    pair("n8", short(rng.normal(100, 5, 8)), short(rng.normal(96, 9, 8))),
    pair("n9", short(rng.normal(100, 5, 9)), short(rng.normal(103, 5, 9))),
    pair("ties_few", [1, 2, 2, 3, 3, 4], [2, 3, 4, 4, 5, 6]),
    pair("ties_many", rng.integers(0, 5, 30), rng.integers(1, 6, 30)),
    pair("pages", rng.integers(100, 140, 12) * 4096, rng.integers(110, 150, 12) * 4096),
    pair("skewed", short(rng.lognormal(1, 1, 25)), short(rng.lognormal(1.4, 1, 20))),
    pair("heavy", short(rng.standard_t(2, 30)), short(rng.standard_t(2, 30) + 0.5)),
    pair("huge", short(rng.normal(10, 0.01, 10), 7), short(rng.normal(20, 0.02, 10), 7)),
    pair("p1e-150", short(rng.normal(0, 1, 60)), short(rng.normal(60, 1, 60))),
    pair("p1e-290", short(rng.normal(0, 1, 110)), short(rng.normal(57, 1, 110))),
    pair("small_effect", short(rng.normal(0, 1, 50)), short(rng.normal(0.01, 1, 50))),
    pair("unequal_n", short(rng.normal(50, 3, 3)), short(rng.normal(53, 3, 200))),
    pair("unequal_n8", short(rng.normal(50, 3, 8), 9), short(rng.normal(51, 3, 60), 9)),
    pair("unequal_spread", short(rng.normal(0, 1, 12)), short(rng.normal(2, 40, 18))),
    pair("n500", short(rng.normal(1000, 30, 500)), short(rng.normal(1004, 30, 500))),
    pair("offset", grid(15, 2), grid(15, 2) + 1, offset=1e9),
    pair("offset_far", grid(20, 1), grid(20, 1) + 0.5, offset=2.0 ** 42),
    pair("one_constant", [3.0] * 6, short(rng.normal(3.4, 1, 6))),
    pair("scale_small", short(rng.normal(3, 1, 14) * 1e-12), short(rng.normal(4, 1, 14) * 1e-12)),
    pair("scale_large", short(rng.normal(3, 1, 14) * 1e15), short(rng.normal(2, 1, 14) * 1e15)),
    pair("negative", short(rng.normal(-30, 4, 17)), short(rng.normal(-33, 4, 17))),
]
MATCHED = [p for p in PAIRS if len(samples[p[0]]) == len(samples[p[1]])]

sample("one", [42.0])
sample("constant", [7.25] * 9)
sample("empty", [])
sample("outlying", [10, 10.5, 9.5, 10.2, 9.9, 10.1, 30, 12.4, -4, 10])
sample("mostly_one", [5, 5, 5, 5, 5, 6, 9])
sample("rising", [1, 2, 4, 7, 11, 16])
sample("falling", short(20 - np.arange(30) * 0.3 + rng.normal(0, 1, 30)))
walk = np.cumsum(rng.normal(0, 1, 60))
sample("walk", short(walk))
sample("alternating", short(np.array([1, -1] * 12) + rng.normal(0, 0.3, 24)))
sample("steps", np.repeat([3, 4, 4, 6], 5))
sample("drift_offset", np.round(np.arange(40) * 0.25 * 64 + rng.normal(0, 100, 40)) / 64, 1e9)
sample("uniform", short(rng.uniform(0, 1, 100)))
sample("exponential", short(rng.exponential(1, 40)))
sample("n11", short(rng.normal(0, 1, 11)))
sample("n12", short(rng.normal(0, 1, 12)))
sample("n6", short(rng.normal(0, 1, 6)))
SINGLES = ["constant", "outlying", "mostly_one", "rising", "falling", "walk", "alternating", "steps",
           "drift_offset", "uniform", "exponential", "n11", "n12", "n6"]
SPREAD = [n for n in SINGLES if n != "constant"]

# --- describe ----------------------------------------------------------------------------------------------------


def describe(name):
    x = samples[name]
    mean = ref.exact_mean(x)
    sd = float(ref.root(ref.exact_squares(x) / (len(x) - 1))) if len(x) > 1 else None
    q1, median, q3 = (float(q) for q in np.quantile(plain(name)[0], [0.25, 0.5, 0.75]) + offsets[name])
    assert sd is None or math.isclose(sd, np.std(plain(name)[0], ddof=1), rel_tol=1e-12, abs_tol=0)
    cv = sd / abs(float(mean)) if sd is not None and mean else None
    return {"n": len(x), "mean": float(mean), "median": median, "sd": sd, "cv": cv,
            "min": min(x), "max": max(x), "q1": q1, "q3": q3}


for name in ["one", *SINGLES, *(n for p in PAIRS for n in p)]:
    case("describe", describe(name), x=name)
case("describe", None, x="empty")

# --- t, effects, equivalence -------------------------------------------------------------------------------------


def t_test(a, b, kind, level):
    x, y = plain(a, b)
    test = {"welch": lambda: stats.ttest_ind(y, x, equal_var=False), "student": lambda: stats.ttest_ind(y, x),
            "paired": lambda: stats.ttest_rel(y, x)}[kind]()
    ci = test.confidence_interval(level)
    difference = float(ref.exact_mean(y) - ref.exact_mean(x))
    return {"statistic": float(test.statistic), "df": float(test.df), "p": float(test.pvalue),
            "difference": difference, "se": difference / float(test.statistic),
            "ci": [float(ci.low), float(ci.high)], "level": level}


def effect(a, b, kind, level):
    x, y = plain(a, b)
    if kind == "cohen_dz":
        d = list(map(float, y - x))
        value = float(ref.exact_mean(d)) / float(ref.root(ref.exact_squares(d) / (len(d) - 1)))
        n, df = len(d), len(d) - 1
        t = stats.ttest_rel(y, x).statistic
    else:
        df = len(x) + len(y) - 2
        pooled = (ref.exact_squares(x) + ref.exact_squares(y)) / df
        value = float(ref.exact_mean(y) - ref.exact_mean(x)) / float(ref.root(pooled))
        n = len(x) * len(y) / (len(x) + len(y))
        t = stats.ttest_ind(y, x).statistic
    assert math.isclose(value * math.sqrt(n), t, rel_tol=1e-9)
    ci = [float(v) / math.sqrt(n) for v in ref.nct_interval(value * math.sqrt(n), df, level)]
    return value, ci, df


def tost(a, b, low, high, alpha, kind):
    x, y = plain(a, b)
    if kind == "tost":
        p, (_, p_low, df), (_, p_high, _) = weightstats.ttost_ind(y, x, low, high, usevar="unequal")
        ci = stats.ttest_ind(y, x, equal_var=False).confidence_interval(1 - 2 * alpha)
    else:
        p, (_, p_low, df), (_, p_high, _) = weightstats.ttost_paired(y, x, low, high)
        ci = stats.ttest_rel(y, x).confidence_interval(1 - 2 * alpha)
    return {"p": float(p), "p_low": float(p_low), "p_high": float(p_high), "df": float(df),
            "difference": float(ref.exact_mean(y) - ref.exact_mean(x)), "ci": [float(ci.low), float(ci.high)],
            "bounds": [low, high], "alpha": alpha, "equivalent": bool(p < alpha)}


def bounds(x, y, k):
    """Some bounds about as wide as the data; not symmetric."""
    sd = math.sqrt((np.var(x, ddof=1) + np.var(y, ddof=1)) / 2)
    return [(-0.4 * sd, 0.5 * sd), (-1.2 * sd, sd), (-3 * sd, 2 * sd)][k % 3]


for k, (a, b) in enumerate(PAIRS):
    level = [0.95, 0.95, 0.9, 0.99][k % 4]
    x, y = plain(a, b)
    low, high = short(bounds(x, y, k))
    for kind in ["welch", "student"] + ["paired"] * ((a, b) in MATCHED):
        case(kind, t_test(a, b, kind, level), a=a, b=b, level=level)
    d, ci, df = effect(a, b, "cohen_d", level)
    case("cohen_d", {"value": d, "ci": ci, "level": level}, a=a, b=b, level=level)
    j = float(ref.mp.gamma(ref.mp.mpf(df) / 2) / ref.mp.sqrt(ref.mp.mpf(df) / 2)
              / ref.mp.gamma(ref.mp.mpf(df - 1) / 2))
    case("hedges_g", {"value": d * j, "ci": [v * j for v in ci], "level": level}, a=a, b=b, level=level)
    case("tost", tost(a, b, low, high, 0.05, "tost"), a=a, b=b, low=low, high=high, alpha=0.05)
    if (a, b) in MATCHED:
        d, ci, _ = effect(a, b, "cohen_dz", level)
        case("cohen_dz", {"value": d, "ci": ci, "level": level}, a=a, b=b, level=level)
        case("tost_paired", tost(a, b, low, high, 0.025, "paired"), a=a, b=b, low=low, high=high, alpha=0.025)

for f in ["welch", "student", "paired", "cohen_d", "hedges_g", "cohen_dz"]:
    fails(f, "constant", a="constant", b="constant", level=0.95)
    fails(f, "too_few", a="one", b="one", level=0.95)
    fails(f, "too_few", a="empty", b="empty", level=0.95)
    fails(f, "parameter", a="n6", b="rising", level=1.0)
for f in ["paired", "cohen_dz"]:
    fails(f, "lengths", a="n6", b="n11", level=0.95)

# --- ranks -------------------------------------------------------------------------------------------------------


def mann_whitney(a, b):
    x, y = plain(a, b)
    test = stats.mannwhitneyu(x, y)
    ties = len(set(x) | set(y)) < len(x) + len(y)
    return {"u": float(test.statistic), "p": float(test.pvalue), "exact": min(len(x), len(y)) <= 8 and not ties,
            "shift": float(np.median(y[:, None] - x[None, :]))}


def wilcoxon(d):
    test = stats.wilcoxon(d)
    d = np.array(d)
    left = np.abs(d[d != 0])
    ranks = stats.rankdata(left)
    ties = len(set(left)) < len(left)
    plain_ranks = not ties and len(left) == len(d)
    i, j = np.triu_indices(len(d))
    positive, negative = float(ranks[d[d != 0] > 0].sum()), float(ranks[d[d != 0] < 0].sum())
    assert test.statistic == min(positive, negative)
    return {"statistic": float(test.statistic), "positive": positive, "negative": negative, "n": len(left),
            "p": float(test.pvalue), "exact": len(d) <= (50 if plain_ranks else 13),
            "shift": float(np.median((d[i] + d[j]) / 2))}


for a, b in PAIRS:
    case("mann_whitney", mann_whitney(a, b), a=a, b=b)
case("mann_whitney", mann_whitney("one", "n6"), a="one", b="n6")
case("mann_whitney", mann_whitney("n6", "rising"), a="n6", b="rising")
fails("mann_whitney", "constant", a="constant", b="constant")
fails("mann_whitney", "too_few", a="empty", b="n6")

for a, b in MATCHED:
    x, y = plain(a, b)
    name = sample(a[:-1] + "d", y - x)
    case("wilcoxon", wilcoxon(samples[name]), x=name)
for n, values in {
    "zeros": [0, 0, 1.5, -2, 3, 4.5, 6], "ties13": [1, 1, 2, -2, 3, 3, -1, 4, 5, 5, 6, 6, 7],
    "zeros14": [0, 1, 2, 3.5, -4, 5, 6, 7, -8, 9, 10, 11, 12, 13], "ties40": rng.integers(-6, 9, 40),
    "n50": short(rng.normal(0.3, 1, 50), 9), "n51": short(rng.normal(0.3, 1, 51), 9),
    "all_up": np.arange(1, 21) * 1.25,
}.items():
    case("wilcoxon", wilcoxon(samples[sample("d." + n, values)]), x="d." + n)
sample("nothing", [0.0] * 5)
fails("wilcoxon", "constant", x="nothing")
fails("wilcoxon", "too_few", x="empty")

# --- normality, spread -------------------------------------------------------------------------------------------

for name in [*SPREAD, "n3.a", "n3.b", "n4.a", "n5.a", "n9.a", "skewed.a", "skewed.b", "heavy.a", "p1e-150.a",
             "n500.a", "ties_many.a", "offset.a", "offset_far.b", "scale_small.a", "scale_large.b", "pages.a"]:
    test = stats.shapiro(plain(name)[0])
    case("shapiro_wilk", {"w": float(test.statistic), "p": float(test.pvalue)}, x=name)
fails("shapiro_wilk", "constant", x="constant")
fails("shapiro_wilk", "too_few", x="n2.a")

GROUPS = [list(p) for p in PAIRS if p[0] not in ("n2.a", "n3.a")]  # n3: exactly zero, but for rounding
GROUPS += [["n6", "n11", "n12"], ["uniform", "exponential", "walk", "rising"], ["constant", "n6", "rising"]]
for names in GROUPS:
    groups = plain(*names)
    test = stats.levene(*groups, center="median")
    case("brown_forsythe", {"statistic": float(test.statistic), "df1": len(names) - 1.0,
                            "df2": float(sum(map(len, groups)) - len(names)), "p": float(test.pvalue)}, groups=names)
fails("brown_forsythe", "constant", groups=["constant", "constant"])
fails("brown_forsythe", "constant", groups=["n2.a", "n2.b"])
fails("brown_forsythe", "too_few", groups=["n6"])
fails("brown_forsythe", "too_few", groups=["n6", "one"])

# --- power and the noncentral t ----------------------------------------------------------------------------------

def exact_power(df, ncp, alpha):
    t = stats.t.isf(alpha / 2, df)
    return 1 - ref.nct_cdf(t, df, ncp) + ref.nct_cdf(-t, df, ncp)


def power_of(theirs, df, ncp, alpha):
    """statsmodels' where it is a number: scipy's noncentral t is not everywhere."""
    exact = float(exact_power(df, ncp, alpha))
    if np.isnan(theirs):
        print("statsmodels has no power for df", df, "noncentrality", ncp)
    else:
        assert math.isclose(theirs, exact, rel_tol=1e-9), (theirs, exact)
    return exact


for d, n_a, n_b, alpha in [(0.5, 20, 20, 0.05), (0.2, 10, 30, 0.05), (1.5, 5, 5, 0.01), (-0.8, 12, 7, 0.05),
                           (0.0, 9, 9, 0.05), (3.0, 3, 4, 0.05), (0.01, 50, 50, 0.05), (0.1, 500, 500, 0.001),
                           (2.5, 2, 2, 0.05), (0.05, 2000, 3000, 0.05), (12.0, 3, 3, 0.001)]:
    want = sm_power.TTestIndPower().power(d, n_a, alpha, ratio=n_b / n_a)
    want = power_of(want, n_a + n_b - 2, d * math.sqrt(n_a * n_b / (n_a + n_b)), alpha)
    case("two_sample", want, d=d, n_a=n_a, n_b=n_b, alpha=alpha)
for d, n, alpha in [(0.5, 20, 0.05), (-0.3, 40, 0.05), (1.0, 2, 0.05), (2.0, 5, 0.01), (0.02, 1000, 0.05),
                    (0.0, 8, 0.1)]:
    want = power_of(sm_power.TTestPower().power(d, n, alpha), n - 1, d * math.sqrt(n), alpha)
    case("power_paired", want, d=d, n=n, alpha=alpha)


def fewest(d, goal, alpha):
    def at(n):
        return exact_power(2 * n - 2, d * math.sqrt(n / 2), alpha)

    few, enough = 1, 2
    while at(enough) < goal:
        few, enough = enough, 2 * enough
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if at(middle) < goal else (few, middle)
    # statsmodels knows no number below two, and stops anywhere where scipy's noncentral t is not a number.
    theirs = sm_power.TTestIndPower()
    solved = np.atleast_1d(theirs.solve_power(effect_size=abs(d), power=goal, alpha=alpha))[0]
    if enough > 2 and math.isclose(theirs.power(d, solved, alpha), goal, rel_tol=1e-6):
        assert math.ceil(solved) == enough, (d, goal, alpha, solved, enough)
    elif enough > 2:
        print("statsmodels does not solve n_for", d, goal, alpha, "to", enough)
    return enough


for d, goal, alpha in [(0.5, 0.8, 0.05), (0.2, 0.9, 0.05), (1.0, 0.8, 0.01), (2.0, 0.95, 0.05), (-0.8, 0.8, 0.05),
                       (10.0, 0.9, 0.05), (0.03, 0.8, 0.05), (0.35, 0.99, 0.001)]:
    case("n_for", fewest(d, goal, alpha), d=d, power=goal, alpha=alpha)
fails("n_for", "parameter", d=0.0, power=0.8, alpha=0.05)
fails("n_for", "parameter", d=0.5, power=1.0, alpha=0.05)
fails("two_sample", "too_few", d=0.5, n_a=1, n_b=5, alpha=0.05)
fails("power_paired", "too_few", d=0.5, n=1, alpha=0.05)

far = 0
for df in [1, 2, 3.7, 10, 58, 250, 1000]:
    for ncp in [-3, 0, 0.5, 4, 15, 40, 49, 51, 90]:
        for spread in [-4, -1, 0, 1.5, 5]:
            t = float(f"{ncp * (1 + 0.25 / df) + spread * math.sqrt(1 + ncp * ncp / (2 * df)):.5g}")
            below = ref.nct_cdf(t, df, ncp)
            if (len(cases) + int(10 * spread) + int(ncp)) % 3:
                cases.append(None)
                continue
            if 1e-14 < below < 1 - 1e-14:
                far += not math.isclose(stats.nct.cdf(t, df, ncp), float(below), rel_tol=1e-9)
                case("noncentral_t_cdf", float(below), t=t, df=df, ncp=ncp)
                case("noncentral_t_sf", float(1 - below), t=t, df=df, ncp=ncp)
cases = [c for c in cases if c]
print(far, "of the noncentral t are not scipy's to 1e-9")

# --- bootstrap ---------------------------------------------------------------------------------------------------

for k, (a, b) in enumerate([p for p in PAIRS if len(samples[p[0]]) + len(samples[p[1]]) <= 60]):
    for statistic in ["difference_of_means", "difference_of_medians"]:
        resamples, level, seed = [500, 999][k % 2], [0.95, 0.9][k % 2], [1, 12345, 2 ** 63 + 11][k % 3]
        x, y = (list(map(float, v)) for v in plain(a, b))
        want = ref.bootstrap(x, y, statistic, resamples, level, seed)
        case("bootstrap", want, a=a, b=b, statistic=statistic, resamples=resamples, level=level, seed=seed)
case("bootstrap", ref.bootstrap(samples["constant"], samples["constant"], "difference_of_means", 50, 0.95, 7),
     a="constant", b="constant", statistic="difference_of_means", resamples=50, level=0.95, seed=7)
given = {"a": "n6", "b": "n11", "statistic": "difference_of_means", "seed": 1}
fails("bootstrap", "parameter", resamples=0, level=0.95, **given)
fails("bootstrap", "parameter", resamples=10, level=0.0, **given)
fails("bootstrap", "too_few", resamples=10, level=0.95, **{**given, "a": "one"})

# --- multiple ----------------------------------------------------------------------------------------------------

for p in [[0.01], [0.04, 0.01, 0.03], [0.5, 0.5, 0.5], [1e-300, 1e-10, 0.2, 1.0], [0.0, 0.001, 0.9, 0.02, 0.02],
          short(rng.uniform(0, 1, 20)), short(rng.uniform(0, 1, 40) ** 6)]:
    for f in ["bonferroni", "holm"]:
        case(f, [float(v) for v in multitest.multipletests(p, method=f)[1]], p=p)
for f in ["bonferroni", "holm"]:
    case(f, [], p=[])
    fails(f, "parameter", p=[0.2, 1.5])

# --- series ------------------------------------------------------------------------------------------------------

for name in [*SPREAD, "n3.a", "n4.b", "n9.a", "offset.a", "ties_many.a", "pages.a", "uniform", "n500.a"]:
    case("lag1", ref.lag1(samples[name]), x=name)
    case("mann_kendall", ref.mann_kendall(samples[name]), x=name)
for name in ["n2.a", "constant", *SPREAD, "n3.a", "n4.b", "offset.a", "ties_many.a", "pages.a", "n500.a"]:
    x = plain(name)[0]
    slope, intercept = stats.theilslopes(x)[:2]
    case("theil_sen", {"slope": float(slope), "intercept": float(intercept + offsets[name])}, x=name)
for f in ["lag1", "mann_kendall"]:
    fails(f, "constant", x="constant")
    fails(f, "too_few", x="n2.a")
fails("theil_sen", "too_few", x="one")

# --- outliers ----------------------------------------------------------------------------------------------------

for name in ["one", "constant", *SPREAD, "heavy.a", "skewed.a", "ties_many.a", "n500.a", "offset.a"]:
    x = plain(name)[0]
    q1, q3 = np.quantile(x, [0.25, 0.75])
    fence = lambda k: [float(v) for v in (q1 - k * (q3 - q1), q3 + k * (q3 - q1))]
    inner, outer = fence(1.5), fence(3.0)
    labels = ["far_out" if v < outer[0] or v > outer[1] else "outside" if v < inner[0] or v > inner[1] else "inside"
              for v in x]
    shifted = lambda f: [v + offsets[name] for v in f]
    case("tukey", {"inner": shifted(inner), "outer": shifted(outer), "labels": labels}, x=name)
fails("tukey", "too_few", x="empty")

# --- associations ------------------------------------------------------------------------------------------------

x = short(rng.uniform(0, 100, 25))
sample("x25", x)
sample("y25", short(3 + 0.5 * np.array(x) + rng.normal(0, 8, 25)))
sample("y25_straight", short(3 + 0.5 * np.array(x) + rng.normal(0, 1e-4, 25), 9))
sample("y25_down", short(-2 * np.array(x) + rng.normal(0, 20, 25)))
sample("y25_none", short(rng.normal(0, 1, 25)))
sample("y25_offset", np.round(np.array(x) * 0.25 * 64 + rng.normal(0, 200, 25)) / 64, 1e9)
sample("two_x", [1, 2])
sample("two_y", [3, 7])
XY = [("x25", y) for y in ("y25", "y25_straight", "y25_down", "y25_none", "y25_offset")] + [("y25_offset", "y25")]
XY += [p for p in MATCHED if p[0] not in ("n2.a", "one_constant.a")]
for a, b in XY:
    want = ref.linear_fit(samples[a], samples[b])
    line = stats.linregress(*plain(a, b))
    assert math.isclose(want["slope"], line.slope, rel_tol=1e-9), (a, b)
    case("linear_fit", want, x=a, y=b)
want = ref.linear_fit(samples["two_x"], samples["two_y"])
case("linear_fit", want, x="two_x", y="two_y")
fails("linear_fit", "constant", x="constant", y="n9.a")
fails("linear_fit", "lengths", x="n6", y="n11")
fails("linear_fit", "too_few", x="one", y="one")

used = {n for c in cases for k in ("a", "b", "x", "y") if isinstance(n := c.get(k), str)}
used |= {n for c in cases for n in c.get("groups", [])}
# With the offset apart: numbers of more than 15 digits are not what every parser of JSON reads exactly.
stored = {n: {"offset": offsets[n], "values": [v - offsets[n] for v in samples[n]]} for n in samples if n in used}
text = json.dumps({"samples": stored}, separators=(",", ":"))[:-1]
text += ',"cases":[\n' + ",\n".join(json.dumps(c, separators=(",", ":"), allow_nan=False) for c in cases) + "\n]}\n"
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens.json"), "w") as out:
    out.write(text)
counts = {}
for c in cases:
    counts[c["f"]] = counts.get(c["f"], 0) + 1
print(len(cases), "cases,", len(text), "bytes")
for f, n in counts.items():
    print(f'    ("{f}", {n}),')
