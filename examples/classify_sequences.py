"""Sequences of unequal length in three classes, told apart by their shape."""

import numpy as np

import segue

random = np.random.default_rng(0)
shapes = {
    "rising": lambda t: t / 20,
    "falling": lambda t: -t / 20,
    "waving": lambda t: np.sin(t / 2),
}
names = random.choice(list(shapes), size=240)
x = [shapes[name](np.arange(random.integers(10, 40))) for name in names]
x = [values + random.normal(scale=0.3, size=len(values)) for values in x]

run = segue.fit(
    {
        "data": {"rows": "examples", "split": {"by": "random", "valid": 0.15, "test": 0.25}},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"shape": {"task": "classify"}},
        "model": {"hidden": 16},
        "training": {"epochs": 20},
    },
    {"x": x, "shape": names.tolist()},
)
print(run.evaluation.scope)
print(run.evaluation.frame())
print(run.predict({"x": [np.linspace(0, 2, 30), np.sin(np.arange(25) / 2)]}))
