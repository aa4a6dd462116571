"""Strings of spoken digits to text, live: recordings of single digits joined, silence between."""

from __future__ import annotations

import tempfile
import wave
from functools import cache
from pathlib import Path
from typing import Any

import line
import numpy as np
import polars as pl
from numpy.typing import NDArray

import segue

SPEAKER, RATE = "jackson", 8000
PARTS = {"train": (300, range(10, 50)), "valid": (100, range(5, 10)), "test": (200, range(5))}
"""Strings of each part, and which recordings of a digit they are made of; the official test part is
0 to 4.
"""
SPEC: dict[str, Any] = {
    "data": {"rows": "examples", "split": {"by": "given", "column": "part"}},
    "inputs": {"recording": {"kind": "audio", "rate": RATE, "stack": 3}},
    "outputs": {"digits": {"task": "transcribe"}},
}
SETTINGS: dict[str, Any] = {
    "model": {"cell": "lstm", "hidden": 128, "dropout": 0.2},
    "training": {"epochs": 15, "batch": 16, "learning_rate": 5e-3},
}


@cache
def samples_of(digit: int, index: int) -> NDArray[np.int16]:
    """A recording of one digit."""
    path = line.DATA / "fsdd" / "recordings" / f"{digit}_{SPEAKER}_{index}.wav"
    with wave.open(str(path)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), np.int16)


def string_of(rng: np.random.Generator, indices: range) -> tuple[NDArray[np.int16], str]:
    """Three to seven digits with 0.05 to 0.4 s of faint noise around each."""
    digits = rng.integers(0, 10, int(rng.integers(3, 8)))
    parts = [_silence(rng)]
    for digit in digits:
        parts += [samples_of(int(digit), int(rng.choice(indices))), _silence(rng)]
    return np.concatenate(parts), "".join(map(str, digits))


def _silence(rng: np.random.Generator) -> NDArray[np.int16]:
    count = int(rng.integers(RATE // 20, 2 * RATE // 5))
    return np.round(rng.normal(0, 20, count)).astype(np.int16)


def written(folder: Path, seed: int) -> Path:
    """A table of strings, whose recordings lie beside it."""
    rng, rows = np.random.default_rng(seed), []
    for part, (count, indices) in PARTS.items():
        for place in range(count):
            samples, digits = string_of(rng, indices)
            name = f"{part}-{place}.wav"
            with wave.open(str(folder / name), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(RATE)
                sound.writeframes(samples.tobytes())
            rows.append({"recording": name, "digits": digits, "part": part})
    pl.DataFrame(rows).write_ndjson(folder / "strings.jsonl")
    return folder / "strings.jsonl"


def live(run: segue.Run, folder: Path, strings: int = 20) -> bool:
    """Whether what a session says of test strings, step by step, ends equal to `predict`."""
    names = [f"test-{place}.wav" for place in range(strings)]
    table = folder / "live.jsonl"
    pl.DataFrame({"recording": names}).write_ndjson(table)
    steps = run.trained.sequences(table)
    values = iter(steps.steps["recording"].to_numpy())
    made = []
    for count in steps.lengths:
        session = run.session()
        answers = [session.step({"recording": next(values)}) for _ in range(count)]
        made.append("".join(answer["digits"] for answer in answers))
    return made == run.predict(table)["digits"].to_list()


def once(seed: int) -> dict[str, Any]:
    """Make the strings, train and score with one seed."""
    spec = {**SPEC, "model": SETTINGS["model"], "training": {**SETTINGS["training"], "seed": seed}}
    with tempfile.TemporaryDirectory() as name:
        run = segue.fit(spec, written(Path(name), seed))
        score = run.evaluation.scores["digits"]
        naive = {name: metrics[score.main] for name, metrics in score.baselines.items()}
        return line.result(
            run,
            value=score.metrics["character_error_rate"],
            naive=naive,
            seed=seed,
            settings=SETTINGS,
            more={
                "exact": round(score.metrics["exact"], 4),
                "live_equals_whole": live(run, Path(name)),
            },
        )


if __name__ == "__main__":
    line.main(
        once,
        benchmark="fsdd_strings",
        data="one speaker's digits joined to strings of 3 to 7; test strings of test recordings",
        task="transcribe, live",
        metric="digit error rate",
        target="<= 0.05",
    )
