"""Many machines, live at once: each has its own state, and all are stepped as one batch."""

import math
import random

import polars as pl

import segue

random.seed(0)


def reading(machine, minute):
    """A noisy sensor; a machine runs hot while its own slow wave is high."""
    wave = math.sin(minute / 8 + machine)
    return {"sensor": wave + random.gauss(0, 0.5), "hot": "yes" if wave > 0.3 else "no"}


rows = [
    {"machine": f"m{machine}", "minute": minute, **reading(machine, minute)}
    for machine in range(20)
    for minute in range(100)
]
run = segue.fit(
    {
        "data": {
            "rows": "steps",
            "key": "machine",
            "time": "minute",
            "split": {"by": "key", "valid": 3, "test": 3},
        },
        "inputs": {"sensor": {"kind": "number"}},
        "outputs": {"hot": {"task": "tag"}},
        "model": {"hidden": 16},
        "training": {"epochs": 15},
    },
    pl.DataFrame(rows),
)
print(run.evaluation.frame())

sessions = run.sessions()
for minute in range(30):
    now = {f"new{machine}": reading(machine, minute) for machine in (3, 5, 8)}
    answers = sessions.step({key: {"minute": minute, **record} for key, record in now.items()})
for key, answer in answers.items():
    print(key, "is hot:", now[key]["hot"], " the model says:", answer)

saved = sessions.snapshot()  # bytes; another process goes on from them
other = run.sessions()
other.restore(saved)
print("restored:", other.keys)
