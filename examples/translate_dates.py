"""Dates as people write them into dates as computers do, character by character."""

import random
from datetime import date, timedelta

import segue

draw = random.Random(0)
days = [date(1970, 1, 1) + timedelta(days=draw.randrange(25_000)) for _ in range(4000)]
forms = ["%d %B %Y", "%B %d, %Y", "%A, %d %b %Y", "%d/%m/%Y", "%d.%m.%y"]
written = [day.strftime(draw.choice(forms)).lower() for day in days]

run = segue.fit(
    {
        "data": {"rows": "examples", "split": {"by": "key", "valid": 200, "test": 400}},
        "inputs": {"written": {"kind": "text", "size": 32}},
        "outputs": {"day": {"task": "translate", "unit": "character", "size": 32, "dropout": 0.0}},
        "model": {"hidden": 64, "bidirectional": True, "dropout": 0.0},
        "training": {"epochs": 6, "batch": 32},
    },
    {"written": written, "day": [day.isoformat() for day in days]},
)
print(run.evaluation.frame())
for row in run.predict({"written": ["30 march 2021", "monday, 17 aug 1998"]}).iter_rows():
    print(*row)
