"""Writes sequential.json: levels of tests at looks whose alpha is spent as Lan and DeMets (1983) do, in the manner of O'Brien and Fleming.

    python sequential.py        # Python 3.11, numpy 2.4.6, scipy 1.17.1

Densities are carried from look to look by Simpson's rule on 4,001 places, limits found by scipy's root finder. Five even looks must come to
the published limits: 4.877, 3.357, 2.680, 2.290, 2.031.
"""

import json
import os

import numpy as np
from scipy import integrate, optimize, stats

HERE = os.path.dirname(os.path.abspath(__file__))


def limits(times, alpha):
    spent = lambda t: 4 * stats.norm.sf(stats.norm.isf(alpha / 4) / np.sqrt(t))
    found, before, x, density, last = [], 0.0, None, None, 0.0
    for t in times:
        spend, step = spent(t) - before, np.sqrt(t - last)
        before = spent(t)

        def beyond(limit):
            edge = limit * np.sqrt(t)
            if x is None:
                return 2 * stats.norm.sf(limit)
            return integrate.simpson(density * (stats.norm.sf((edge - x) / step) + stats.norm.cdf((-edge - x) / step)), x=x)

        limit = optimize.brentq(lambda c: beyond(c) - spend, 0.5, 12, xtol=1e-15, rtol=1e-14)
        found.append(limit)
        y = np.linspace(-min(limit, 10) * np.sqrt(t), min(limit, 10) * np.sqrt(t), 4001)
        if x is None:
            density = stats.norm.pdf(y / step) / step
        else:
            density = integrate.simpson(density[None, :] * stats.norm.pdf((y[:, None] - x[None, :]) / step) / step, x=x, axis=1)
        x, last = y, t
    return found


five = limits([0.2, 0.4, 0.6, 0.8, 1.0], 0.05)
assert np.allclose(five, [4.877, 3.357, 2.680, 2.290, 2.031], rtol=0, atol=6e-4), five
cases = []
for times, alpha in [([1.0], 0.05), ([0.5, 1.0], 0.05), ([0.2, 0.4, 0.6, 0.8, 1.0], 0.05), ([0.25, 0.5, 0.75, 1.0], 0.01),
                     ([1 / 3, 2 / 3], 0.05), ([0.3, 0.9, 1.0], 0.1), ([10 / 30, 20 / 30, 1.0], 0.05),
                     ([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0], 0.05)]:
    cases.append({"times": times, "alpha": alpha, "levels": [float(2 * stats.norm.sf(c)) for c in limits(times, alpha)]})
with open(os.path.join(HERE, "sequential.json"), "w") as out:
    out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
