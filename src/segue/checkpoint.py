"""The run folder: what was learnt, on disk. Safetensors, YAML and JSON; nothing in it is code.

    model.safetensors   the weights
    spec.yaml           the declaration, with nothing left open
    metrics.jsonl       one line per look at the validation part
    evaluation.json     scores beside the naive baselines, and examples for the report
    report.html         pictures
    manifest.json       versions, what fields and tasks learnt, and the SHA-256 of every file

A folder is written beside its place and then renamed, so that it is there whole or not at all. See
docs/format.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from safetensors import SafetensorError

from segue.clock import Clock
from segue.errors import RunError
from segue.fields import KINDS
from segue.model import Network
from segue.schema import Declaration, parse
from segue.tasks import TASKS
from segue.trained import Trained

FORMAT = 1
AGAIN = "copy the run folder again or train again"
BAD_BATCH = "bad_batch.safetensors"
"""What a training whose loss was not finite leaves where its run would have been."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says besides what fields and tasks learnt.

    Attributes:
        fingerprint: of the training data, so that they are recognised.
        facts: sizes and figures for the report.
        files: SHA-256 of every file by name.
    """

    fingerprint: str
    facts: dict[str, Any]
    files: dict[str, str]


def save(
    folder: Path,
    trained: Trained,
    *,
    fingerprint: str,
    facts: Mapping[str, Any],
    texts: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Write a run folder: whole or, whatever happens on the way, not at all.

    Args:
        fingerprint: of the training data.
        facts: plain JSON values for the report.
        texts: further files by name, such as metrics.jsonl.
        overwrite: replace an older run; anything else that lies there is never replaced.

    Raises:
        RunError: the place is taken, or cannot be written to.
    """
    _restore_interrupted(folder)
    refuse_taken(folder, overwrite=overwrite)
    files = {name: text.encode() for name, text in texts.items()}
    files["spec.yaml"] = trained.declaration.to_yaml().encode()
    files["model.safetensors"] = safetensors.torch.save(trained.network.state_dict())
    body = {
        "format": FORMAT,
        "segue": version("segue"),
        "fields": {
            name: [list(field.columns), field.fitted()] for name, field in trained.fields.items()
        },
        "tasks": {
            name: [list(task.columns), task.fitted()] for name, task in trained.tasks.items()
        },
        "clock": trained.clock.to_dict(),
        "fingerprint": fingerprint,
        "facts": dict(facts),
        "files": {name: _sha256(data) for name, data in files.items()},
    }
    files["manifest.json"] = _sealed(body)
    try:
        _write(folder, files)
    except OSError as error:
        raise _unwritable(folder, error) from None


def load(folder: Path) -> tuple[Trained, Manifest]:
    """Read a run folder back; the network gives the same bits as the one that was saved.

    Raises:
        RunError: no such folder, not a run, another format, or a file that is not what was written.
    """
    manifest, body = _manifest(folder)
    text = verified(folder, manifest, "spec.yaml").decode()
    weights = verified(folder, manifest, "model.safetensors")
    declaration = parse(yaml.safe_load(text), spec_kinds(), spec_tasks(), "spec.yaml")
    try:
        return _rebuilt(declaration, body, weights), manifest
    except (KeyError, RuntimeError, SafetensorError) as error:
        got, fix = str(error).splitlines()[0], f"use the segue that wrote it ({body['segue']})"
        raise RunError(str(folder), "a run of this version of segue", got, fix) from None


def _rebuilt(declaration: Declaration, body: dict[str, Any], weights: bytes) -> Trained:
    fields, tasks = {}, {}
    for name, spec in declaration.inputs.items():
        columns, fitted = body["fields"][name]
        fields[name] = KINDS[spec.kind](name, tuple(columns), spec)
        fields[name].restore(fitted)
    for name, output in declaration.outputs.items():
        columns, fitted = body["tasks"][name]
        tasks[name] = TASKS[output.task](name, tuple(columns), output)
        tasks[name].restore(fitted)
        tasks[name].use(fields)
    # The first weights are drawn at random; that shall not be noticed outside.
    with torch.random.fork_rng(devices=()):
        clock = Clock(**body["clock"])
        network = Network(fields, tasks, declaration, clock.step)
    network.load_state_dict(safetensors.torch.load(weights))
    network.eval()
    return Trained(declaration, fields, tasks, network, clock)


def verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a file of the run, if they are those that were written.

    Raises:
        RunError: the file is not there or has changed.
    """
    path = _place(folder) / name
    try:
        data = path.read_bytes()
    except OSError as error:
        got, fix = str(error.strerror), "copy the whole run folder again"
        raise RunError(str(path), "a file of the run", got, fix) from None
    written, found = manifest.files.get(name, "none"), _sha256(data)
    if found != written:
        expected = f"the file as it was written (SHA-256 {written[:12]}...)"
        raise RunError(str(path), expected, f"SHA-256 {found[:12]}...", AGAIN)
    return data


def replace_file(folder: Path, name: str, text: str) -> None:
    """Write one file of a run anew, such as report.html, and its hash.

    Raises:
        RunError: the run is damaged, or cannot be written to.
    """
    _, body = _manifest(folder)
    body["files"][name] = _sha256(text.encode())
    try:
        for file, data in ((name, text.encode()), ("manifest.json", _sealed(body))):
            _write_file(folder / f"{file}.partial", data)
            os.replace(folder / f"{file}.partial", folder / file)
    except OSError as error:
        raise _unwritable(folder, error) from None


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Raise if `folder` may not be written: it is better known before training than after it.

    What may be replaced is an empty folder, one where a training left its bad batch, and, if
    `overwrite`, a run without foreign files.

    Raises:
        RunError: the place is taken.
    """
    place = _place(folder)
    if not os.path.exists(place):
        return
    where, expected = str(folder), "a new folder for the run"
    names = {path.name for path in place.iterdir()} if place.is_dir() else {"a file"}
    if names <= {BAD_BATCH}:
        return
    if "manifest.json" not in names:
        raise RunError(where, expected, "something that is not a run", "choose another name")
    if not overwrite:
        raise RunError(where, expected, "a run", "choose another name, or say --overwrite")
    own = {"manifest.json", BAD_BATCH, *_manifest(folder)[0].files}
    foreign = sorted(name for name in names - own if not name.endswith(".partial"))
    if foreign:
        got, fix = f"a run and {foreign[0]!r}, which is not its own", "move that file away first"
        raise RunError(where, expected, got, fix)


def spec_kinds() -> dict[str, Any]:
    """The options of every kind of input, for `segue.schema.parse`."""
    return {name: kind.Spec for name, kind in KINDS.items()}


def spec_tasks() -> dict[str, Any]:
    """The options of every task, for `segue.schema.parse`."""
    return {name: task.Spec for name, task in TASKS.items()}


def _manifest(folder: Path) -> tuple[Manifest, dict[str, Any]]:
    """The manifest, and all that its file says."""
    path = _place(folder) / "manifest.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        expected, fix = "a run folder with manifest.json", "check the path"
        raise RunError(str(path), expected, str(error.strerror), fix) from None
    try:
        body = json.loads(data)["manifest"]
        is_sealed, form = _sealed(body) == data, body["format"]
    except (ValueError, KeyError, TypeError):
        raise RunError(str(path), "the manifest of a run", "something else", AGAIN) from None
    if not is_sealed:
        got = "another SHA-256 than it says"
        raise RunError(str(path), "the manifest as it was written", got, AGAIN)
    if form != FORMAT:
        fix = f"use the segue that wrote it ({body['segue']})"
        raise RunError(str(path), f"format {FORMAT}", f"format {form}", fix)
    return Manifest(body["fingerprint"], body["facts"], body["files"]), body


def _sealed(body: dict[str, Any]) -> bytes:
    """The file of a manifest: what it says, and the SHA-256 of that."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return json.dumps(
        {"manifest": body, "sha256": _sha256(text.encode())}, indent=1, ensure_ascii=False
    ).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _beside(folder: Path, what: str) -> Path:
    """A name in the same place that belongs to `folder`."""
    folder = Path(os.path.realpath(folder))
    return folder.with_name(f".{folder.name}.{what}")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files or none: written and synced beside their place, then renamed."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        for name, data in files.items():
            _write_file(new / name, data)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _place(folder: Path) -> Path:
    """Where the run is: beside its place if its overwriting was cut off between the two renames."""
    old = _beside(folder, "old")
    # os.path answers no where a name is too long; Path raises.
    return old if os.path.isdir(old) and not os.path.exists(folder) else folder


def _restore_interrupted(folder: Path) -> None:
    """Put an old run back whose overwriting was cut off between the two renames."""
    if _place(folder) != folder:
        os.rename(_place(folder), folder)


def _unwritable(folder: Path, error: OSError) -> RunError:
    got, fix = f"{error.strerror} ({error.filename})", "choose another folder"
    return RunError(str(folder), "a place to write a run to", got, fix)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
