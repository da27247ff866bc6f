"""What the blocks of the published study show: start to start, plateaus, and intervals by blocks.

    python blocks.py all_benchmark_results.json

Needs numpy and scipy. A block is the runs of a label in an environment; of an iteration that was begun again the last start counts.
"""

import datetime
import json
import sys

import numpy as np
from scipy import stats

models = json.load(open(sys.argv[1]))["models"]


def block(model, environment):
    runs = sorted(models[model][environment], key=lambda run: run["timestamp"])
    return list({run["iteration"]: run for run in runs}.values())


def values(model, environment, key):
    return np.array([run[key] for run in block(model, environment)])


def minutes(model, environment):
    at = [datetime.datetime.strptime(run["timestamp"], "%Y%m%d_%H%M%S") for run in block(model, environment)]
    return np.array([(b - a).total_seconds() / 60 for a, b in zip(at, at[1:])])


def of_blocks(name, differences):
    differences = np.array(differences)
    low, high = stats.t.interval(0.95, len(differences) - 1, differences.mean(), stats.sem(differences))
    each = ", ".join(f"{difference:+.2f}" for difference in differences)
    p = stats.ttest_1samp(differences, 0).pvalue
    print(f"{name}: {differences.mean():+.2f} (95 % CI {low:+.2f} to {high:+.2f}, p {p:.2g}) of {each}")


both = ("native", "container")
for environment in both:
    all_of = np.concatenate([minutes(model, environment) for model in models])
    print(f"start to start, {environment}: {all_of.mean():.2f} +- {all_of.std(ddof=1):.2f} minutes in {len(all_of)} intervals, "
          f"{all_of.min():.1f} to {all_of.max():.1f}")
of_blocks("start to start, minutes", [minutes(model, "container").mean() - minutes(model, "native").mean() for model in models])
for key, name in (("peak_memory", "peak, GiB"), ("output_throughput", "speed, tokens/s"), ("end_temp_celsius", "end temperature, degrees")):
    means = {side: [values(model, side, key).mean() for model in models] for side in both}
    of_blocks(name, np.subtract(means["container"], means["native"]))
for model in models:
    native, container = (values(model, side, "peak_memory")[-5:].mean() for side in both)
    a, b = (values(model, side, "output_throughput") for side in both)
    test = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    print(f"{model}: the last five peaks {native:.1f} and {container:.1f} GiB, {container - native:+.1f}; "
          f"speed {100 * (b.mean() / a.mean() - 1):+.2f} % ({100 * test.low / a.mean():+.2f} to {100 * test.high / a.mean():+.2f})")
