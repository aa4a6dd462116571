"""A run folder holds what was learnt, whole or not at all, and nothing that was changed since."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import segue
from segue import checkpoint
from segue.errors import RunError
from segue.run import Run, rewrite_report

FILES = ["model.safetensors", "spec.yaml", "metrics.jsonl", "evaluation.json", "manifest.json"]


def trained(seed: int = 0) -> Run:
    x = np.random.default_rng(0).normal(size=(8, 5, 2))
    split = {"by": "key", "valid": 0, "test": 2}
    sizes = {"hidden": 4, "dropout": 0.0}
    return segue.fit(
        x, x.mean((1, 2)), model=sizes, training={"epochs": 1, "seed": seed}, split=split
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    trained().save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A run folder to be harmed."""
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def message_of(folder: Path) -> str:
    with pytest.raises(RunError) as caught:
        segue.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


# What is in it ------------------------------------------------------------------------------------


def test_a_run_folder_holds_these_files_and_nothing_that_can_run(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {*FILES, "report.html"}
    for name, data in bytes_in(saved).items():
        assert not data.startswith(b"\x80"), name
        assert b"__reduce__" not in data, name


def test_saving_again_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    segue.load(saved).save(tmp_path / "again")
    again, before = bytes_in(tmp_path / "again"), bytes_in(saved)
    for name in FILES:
        assert again[name] == before[name], name


def test_loading_leaves_the_callers_random_numbers_as_they_were(saved: Path) -> None:
    before = torch.random.get_rng_state()
    segue.load(saved)
    assert torch.equal(torch.random.get_rng_state(), before)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    positions = np.random.default_rng(1).integers(0, len(data), 25).tolist()
    for position in {0, len(data) // 2, len(data) - 1, *positions}:
        for bit in (0, 3, 7):
            harmed = bytearray(data)
            harmed[position] ^= 1 << bit
            (folder / name).write_bytes(harmed)
            assert name in message_of(folder)
    (folder / name).write_bytes(data)
    segue.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        (folder / name).write_bytes(data[:size])
        assert name in message_of(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    what = "a run folder with manifest.json" if name == "manifest.json" else "a file of the run"
    fix = "check the path" if name == "manifest.json" else "copy the whole run folder again"
    assert message_of(folder) == (
        f"{folder / name}: expected {what}, got No such file or directory; {fix}"
    )


def test_changed_weights_are_named_with_their_hashes(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    written, found = checkpoint._sha256(data), checkpoint._sha256(path.read_bytes())
    assert message_of(folder) == (
        f"{path}: expected the file as it was written (SHA-256 {written[:12]}...), "
        f"got SHA-256 {found[:12]}...; copy the run folder again or train again"
    )


def test_a_changed_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"sequences": 8', '"sequences": 9'))
    assert message_of(folder) == (
        f"{path}: expected the manifest as it was written, got another SHA-256 than it says; "
        "copy the run folder again or train again"
    )


@pytest.mark.parametrize("text", ["", "hello", "{}", "[1]", '{"manifest": 3}', '{"manifest": {}}'])
def test_another_manifest_is_refused(folder: Path, text: str) -> None:
    path = folder / "manifest.json"
    path.write_text(text)
    assert message_of(folder) == (
        f"{path}: expected the manifest of a run, got something else; "
        "copy the run folder again or train again"
    )


def test_another_format_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"]
    path.write_bytes(checkpoint._sealed({**body, "format": 2, "segue": "7.0"}))
    assert message_of(folder) == (
        f"{path}: expected format 1, got format 2; use the segue that wrote it (7.0)"
    )


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"]
    del body["tasks"]["y"]
    path.write_bytes(checkpoint._sealed({**body, "segue": "0.0"}))
    assert message_of(folder) == (
        f"{folder}: expected a run of this version of segue, got 'y'; "
        "use the segue that wrote it (0.0)"
    )


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert message_of(tmp_path) == (
        f"{tmp_path / 'manifest.json'}: expected a run folder with manifest.json, "
        "got No such file or directory; check the path"
    )
    (tmp_path / "file").write_text("x")
    assert "got Not a directory; check the path" in message_of(tmp_path / "file")


# The report ---------------------------------------------------------------------------------------


def test_the_report_may_be_edited_and_is_made_anew(folder: Path) -> None:
    before = bytes_in(folder)
    (folder / "report.html").write_text("my own notes")
    segue.load(folder)
    assert rewrite_report(folder) == folder / "report.html"
    assert bytes_in(folder) == before
    (folder / "report.html").unlink()
    rewrite_report(folder)
    assert bytes_in(folder) == before


# Where it may be written --------------------------------------------------------------------------


def taken(folder: Path, *, overwrite: bool = False) -> str:
    with pytest.raises(RunError) as caught:
        trained().save(folder, overwrite=overwrite)
    return str(caught.value)


def test_a_run_is_replaced_only_if_that_is_said(folder: Path) -> None:
    before = bytes_in(folder)
    assert taken(folder) == (
        f"{folder}: expected a new folder for the run, got a run; "
        "choose another name, or say --overwrite"
    )
    assert bytes_in(folder) == before
    trained(seed=1).save(folder, overwrite=True)
    assert bytes_in(folder)["model.safetensors"] != before["model.safetensors"]
    assert segue.load(folder).declaration.training.seed == 1
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_something_else_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("run", "file"):
        assert taken(tmp_path / name, overwrite=overwrite) == (
            f"{tmp_path / name}: expected a new folder for the run, "
            "got something that is not a run; choose another name"
        )
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_a_run_with_foreign_files_is_not_replaced(folder: Path) -> None:
    (folder / "predictions.csv").write_text("1")
    assert taken(folder, overwrite=True) == (
        f"{folder}: expected a new folder for the run, "
        "got a run and 'predictions.csv', which is not its own; move that file away first"
    )
    assert (folder / "predictions.csv").exists()


@pytest.mark.parametrize("names", [[], ["bad_batch.safetensors"]])
def test_an_empty_folder_and_one_of_a_failed_training_may_be_used(
    tmp_path: Path, names: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / "run" / name).write_bytes(b"")
    trained().save(tmp_path / "run")
    segue.load(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    trained().save(tmp_path / "a" / "b")
    segue.load(tmp_path / "a" / "b")


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    where = tmp_path / "file" / "run"
    assert taken(where) == (
        f"{where}: expected a place to write a run to, got File exists ({tmp_path / 'file'}); "
        "choose another folder"
    )
    where = tmp_path / ("r" * 252)
    assert taken(where) == (
        f"{where}: expected a place to write a run to, got File name too long "
        f"({tmp_path / ('.' + 'r' * 252 + '.new')}); choose another folder"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_link_to_a_folder_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    trained().save(tmp_path / "run")
    trained(seed=1).save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run").is_symlink()
    assert segue.load(tmp_path / "disk").declaration.training.seed == 1


# A process that dies on the way -------------------------------------------------------------------


def test_a_run_is_found_whose_overwriting_was_cut_off(folder: Path) -> None:
    """The instant between the two renames."""
    before = bytes_in(folder)
    os.rename(folder, folder.parent / ".run.old")
    assert segue.load(folder).declaration.training.seed == 0
    assert "got a run; choose another name" in taken(folder)
    trained(seed=1).save(folder, overwrite=True)
    assert segue.load(folder).declaration.training.seed == 1
    assert bytes_in(folder).keys() == before.keys()
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


SAVING = """
import sys, segue
runs = [segue.load(place) for place in sys.argv[2:]]
print("ready", flush=True)
while True:
    for run in runs:
        run.save(sys.argv[1], overwrite=True)
"""


def test_a_process_killed_while_saving_leaves_the_old_run_or_the_new_one(
    folder: Path, tmp_path: Path
) -> None:
    trained(seed=1).save(tmp_path / "one")
    trained(seed=2).save(tmp_path / "two")
    whole = {
        seed: bytes_in(tmp_path / name)["model.safetensors"]
        for seed, name in ((1, "one"), (2, "two"))
    } | {0: bytes_in(folder)["model.safetensors"]}
    command = [
        sys.executable,
        "-c",
        SAVING,
        *map(str, (folder, tmp_path / "one", tmp_path / "two")),
    ]
    seen = set()
    for attempt in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        run = segue.load(folder)
        seed = run.declaration.training.seed
        seen.add(seed)
        place = folder if folder.exists() else folder.parent / ".run.old"
        assert bytes_in(place)["model.safetensors"] == whole[seed]
    assert seen
    trained(seed=1).save(folder, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "run", "two"]
