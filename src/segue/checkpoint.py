"""The run folder: what was learnt, on disk. Safetensors, YAML and JSON; nothing in it is code.

    model.safetensors   the weights
    spec.yaml           the declaration, with nothing left open
    metrics.jsonl       one line per look at the validation part
    evaluation.json     scores beside the naive baselines, and examples for the report
    report.html         pictures
    manifest.json       versions, what fields and tasks learnt, and the SHA-256 of every file

A folder is written beside its place and then renamed, so that it is there whole or not at all. See docs/format.md.
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
import yaml
from safetensors import SafetensorError

from segue.clock import Clock
from segue.errors import RunError
from segue.fields import KINDS
from segue.model import Network
from segue.schema import parse
from segue.tasks import TASKS
from segue.trained import Trained

FORMAT = 1


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
    """Write a run folder.

    Args:
        texts: further files by name, such as metrics.jsonl.
        overwrite: replace an older run; anything else that lies there is never replaced.

    Raises:
        RunError: the place is taken, or cannot be written to.
    """
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
        raise RunError(
            str(folder), "a place to write a run to", str(error.strerror), "choose another folder"
        ) from None


def load(folder: Path) -> tuple[Trained, Manifest]:
    """Read a run folder back; the network gives the same bits as the one that was saved.

    Raises:
        RunError: no such folder, not a run, another format, or a file that is not what was written.
    """
    manifest, body = _manifest(folder)
    text = verified(folder, manifest, "spec.yaml").decode()
    declaration = parse(yaml.safe_load(text), spec_kinds(), spec_tasks(), "spec.yaml")
    fields, tasks = {}, {}
    for name, spec in declaration.inputs.items():
        columns, fitted = body["fields"][name]
        fields[name] = KINDS[spec.kind](name, tuple(columns), spec)
        fields[name].restore(fitted)
    for name, output in declaration.outputs.items():
        columns, fitted = body["tasks"][name]
        tasks[name] = TASKS[output.task](name, tuple(columns), output)
        tasks[name].restore(fitted)
    network = Network(fields, tasks, declaration)
    try:
        network.load_state_dict(
            safetensors.torch.load(verified(folder, manifest, "model.safetensors"))
        )
    except (SafetensorError, RuntimeError) as error:
        got = str(error).splitlines()[0]
        where = str(folder / "model.safetensors")
        raise RunError(where, "the weights of spec.yaml", got, "train again") from None
    network.eval()
    return Trained(declaration, fields, tasks, network, Clock(**body["clock"])), manifest


def verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a file of the run, if they are those that were written.

    Raises:
        RunError: the file is not there or has changed.
    """
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(
            str(path), "a file of the run", str(error.strerror), "copy the whole run folder again"
        ) from None
    if _sha256(data) != manifest.files.get(name):
        got = f"SHA-256 {_sha256(data)[:12]}..."
        expected = (
            f"the file as it was written (SHA-256 {manifest.files.get(name, 'none')[:12]}...)"
        )
        raise RunError(str(path), expected, got, "copy the run folder again or train again")
    return data


def replace_file(folder: Path, name: str, text: str) -> None:
    """Write one file of a run anew, such as report.html, and its hash."""
    _, body = _manifest(folder)
    body["files"][name] = _sha256(text.encode())
    _write_file(folder / f"{name}.partial", text.encode())
    os.replace(folder / f"{name}.partial", folder / name)
    _write_file(folder / "manifest.json.partial", _sealed(body))
    os.replace(folder / "manifest.json.partial", folder / "manifest.json")


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Raise if `folder` may not be written: it is better known before training than after it."""
    if not folder.exists():
        return
    is_run = (folder / "manifest.json").is_file()
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not is_run:
        raise RunError(
            str(folder),
            "a new folder for the run",
            "something that is not a run",
            "choose another name",
        )
    if not overwrite:
        raise RunError(
            str(folder),
            "a new folder for the run",
            "a run",
            "choose another name, or say --overwrite",
        )


def spec_kinds() -> dict[str, Any]:
    """The options of every kind of input, for `segue.schema.parse`."""
    return {name: kind.Spec for name, kind in KINDS.items()}


def spec_tasks() -> dict[str, Any]:
    """The options of every task, for `segue.schema.parse`."""
    return {name: task.Spec for name, task in TASKS.items()}


def _manifest(folder: Path) -> tuple[Manifest, dict[str, Any]]:
    path = folder / "manifest.json"
    try:
        outer = json.loads(path.read_bytes())
        body = outer["manifest"]
        sealed = _sealed(body) == path.read_bytes()
        form = body["format"]
    except OSError as error:
        raise RunError(
            str(path), "a run folder with manifest.json", str(error.strerror), "check the path"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunError(
            str(path), "the manifest of a run", "something else", "copy the run folder again"
        ) from None
    if not sealed:
        got = "another SHA-256 than it says"
        raise RunError(
            str(path),
            "the manifest as it was written",
            got,
            "copy the run folder again or train again",
        )
    if form != FORMAT:
        raise RunError(
            str(path),
            f"format {FORMAT}",
            f"format {form}",
            f"use the segue that wrote it ({body['segue']})",
        )
    return Manifest(body["fingerprint"], body["facts"], body["files"]), body


def _sealed(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return json.dumps(
        {"manifest": body, "sha256": _sha256(text.encode())}, indent=1, ensure_ascii=False
    ).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files or none: written and synced beside their place, then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    beside.mkdir()
    for name, data in files.items():
        _write_file(beside / name, data)
    if folder.exists():
        os.rename(folder, old)
    os.rename(beside, folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
