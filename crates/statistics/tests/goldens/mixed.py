"""Writes mixed.json: linear models with a random intercept for each group, by restricted maximum likelihood.

    python mixed.py             # Python 3.11, numpy 2.4.6, scipy 1.17.1, statsmodels 0.15.0, mpmath 1.4.1

The figures are those of the full likelihood with its covariance matrix, at 40 digits (mpmath). MixedLM of statsmodels, which stops its search
earlier, must agree with them to 1e-4. Intervals and p are by t with groups minus coefficients degrees of freedom.
"""

import json
import os
import warnings

import mpmath as mp
import numpy as np
import statsmodels.api as sm

HERE = os.path.dirname(os.path.abspath(__file__))
warnings.simplefilter("ignore")
mp.mp.dps = 40
rng = np.random.default_rng(20261130)


def make(sizes, columns, sd_group, sd, coefficients):
    groups = []
    for i, n in enumerate(sizes):
        x = [float(v) for v in columns(i)]
        u = rng.normal(0, sd_group)
        groups.append({"x": x, "y": [float(np.dot(x, coefficients) + u + rng.normal(0, sd)) for _ in range(n)]})
    return groups


def exact(groups):
    x = mp.matrix([g["x"] for g in groups for _ in g["y"]])
    y = mp.matrix([v for g in groups for v in g["y"]])
    n, p = x.rows, x.cols

    def at(ratio):
        v = mp.matrix(n, n)
        start = 0
        for g in groups:
            for i in range(start, start + len(g["y"])):
                for j in range(start, start + len(g["y"])):
                    v[i, j] = ratio + (1 if i == j else 0)
            start += len(g["y"])
        inv = v ** -1
        a = x.T * inv * x
        b = a ** -1 * (x.T * inv * y)
        r = y - x * b
        q = (r.T * inv * r)[0]
        return b, a, q, mp.log(mp.det(v)) + mp.log(mp.det(a)) + (n - p) * mp.log(q)

    low_precision = lambda ratio: at(mp.mpf(ratio))[3]
    grid = [0.0] + list(np.logspace(-3, 3, 25))
    with mp.workdps(20):
        scan = [low_precision(g) for g in grid]
    k = int(np.argmin([float(s) for s in scan]))
    slope = lambda r: mp.diff(low_precision, r, h=mp.mpf(10) ** -12)
    if k == 0 and slope(mp.mpf("1e-10")) > 0:
        ratio = mp.mpf(0)
    else:
        ratio = mp.findroot(slope, (mp.mpf(grid[max(k - 1, 0)]) + mp.mpf("1e-9"), mp.mpf(grid[min(k + 1, len(grid) - 1)])),
                            solver="anderson", tol=1e-25)
    b, a, q, _ = at(ratio)
    variance = q / (n - p)
    cov = a ** -1 * variance
    return [float(v) for v in b], [float(mp.sqrt(cov[i, i])) for i in range(p)], float(mp.sqrt(ratio * variance)), float(mp.sqrt(variance))


from scipy import stats  # noqa: E402

designs = {
    "one-mean": ([5] * 6, lambda i: [1], 2.0, 1.0, [3]),
    "one-mean-uneven": ([3, 9, 4, 7, 2, 6, 5], lambda i: [1], 1.0, 1.5, [3]),
    "size": ([6] * 8, lambda i: [1, i - 3.5], 0.5, 1.0, [1, 0.3]),
    "size-uneven": ([2, 8, 5, 3, 7, 6, 4, 9, 3], lambda i: [1, i - 4], 1.0, 1.0, [1, 0.3]),
    "size-and-kind": ([5] * 10, lambda i: [1, i % 5 - 2, i // 5], 1.0, 1.0, [2, 0.5, -1]),
    "size-and-kind-uneven": ([4, 1, 6, 3, 5, 2, 7, 4, 3, 5], lambda i: [1, np.log2(1 + i) - 2, i % 2], 0.7, 1.0, [2, 0.5, -1]),
    "no-spread-of-groups": ([6] * 8, lambda i: [1, i - 3.5], 0.0, 3.0, [1, 0.3]),
    "large-spread-of-groups": ([3, 4, 5, 4, 3, 4], lambda i: [1], 50.0, 0.1, [0]),
    "offset": ([5, 4, 5, 6, 5], lambda i: [1], 1.0, 1.0, [1e6]),
}
out = []
for name, (sizes, columns, sd_group, sd, coefficients) in designs.items():
    groups = make(sizes, columns, sd_group, sd, coefficients)
    b, se, sd_groups, sd_within = exact(groups)
    endog = np.array([v for g in groups for v in g["y"]])
    exog = np.array([g["x"] for g in groups for _ in g["y"]])
    names = [i for i, g in enumerate(groups) for _ in g["y"]]
    theirs = sm.MixedLM(endog, exog, names).fit(reml=True, method=["powell", "lbfgs"], gtol=1e-12, ftol=1e-15, maxiter=5000)
    assert np.allclose(theirs.fe_params, b, rtol=1e-4, atol=1e-6), (name, theirs.fe_params, b)
    # MixedLM takes standard errors from the whole likelihood's curvature, with that of the variances. As other programs do, they are taken
    # from the coefficients alone here: those of statsmodels' GLS with MixedLM's variances. With groups of one size both are the same.
    ratio = float(np.asarray(theirs.cov_re)[0, 0]) / theirs.scale
    sigma = np.eye(len(endog)) + ratio * (np.array(names)[:, None] == np.array(names)[None, :])
    bse = sm.GLS(endog, exog, sigma=sigma).fit().bse
    assert np.allclose(bse, se, rtol=2e-3), (name, bse, se)
    if len(set(sizes)) == 1 and sd_groups > 0:
        assert np.allclose(theirs.bse_fe, se, rtol=2e-3), (name, theirs.bse_fe, se)
    assert np.isclose(np.sqrt(theirs.scale), sd_within, rtol=1e-3), (name, np.sqrt(theirs.scale), sd_within)
    worst = float(max(np.max(np.abs(bse / se - 1)), np.max(np.abs(np.array(theirs.fe_params) / b - 1))))
    print(name, "statsmodels differs by", worst, "sd", sd_groups, sd_within)
    df = len(groups) - len(b)
    half = [float(stats.t.isf(0.025, df)) * s for s in se]
    out.append({"name": name, "groups": groups, "estimate": b, "se": se, "sd_groups": sd_groups, "sd_within": sd_within, "df": df,
                "p": [float(2 * stats.t.sf(abs(e / s), df)) for e, s in zip(b, se)],
                "ci": [[e - h, e + h] for e, h in zip(b, half)]})
with open(os.path.join(HERE, "mixed.json"), "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case, allow_nan=False) for case in out) + "\n]\n")
