"""What the result of a run depends on: texts and labels, weights, versions, machine, threads and torch device.

A path says nothing: two folders of one name hold different data, and one file changes. So content is digested.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.models.training.backbone import PACKAGED, weight_arrays
from edgealloc.models.training.task import Setup, Task
from edgealloc.models.training.texts import load_sources

_PACKAGES = ("edgealloc", "numpy", "torch", "transformers", "peft")
_PIECE = 1 << 20  # bytes of a file at a time


def environment(device: str) -> dict[str, Any]:
    """Where a run happens, as far as its bits depend on it.

    Parameters
    ----------
    device
        Torch device.

    Returns
    -------
    dict
        Versions, machine, device and torch's number of threads.
    """
    import torch

    place = torch.device(device)
    card = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor()
    return {
        **{package: version(package) for package in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()} {card}",
        "device": place.type,
        "threads": torch.get_num_threads(),
    }


def setup_identity(setup: Setup, device: str) -> dict[str, Any]:
    """What determines the result of a run of this setup, without names and folders.

    Parameters
    ----------
    setup
        The task; its data are read.
    device
        Torch device.

    Returns
    -------
    dict
        Plain values, the same for the same content wherever it lies.

    Raises
    ------
    OSError, ValueError
        If the data cannot be read.
    """
    facts = asdict(setup)
    for name in ("name", "train_file", "test_file", "backbone"):
        del facts[name]
    if setup.train_file is None:
        from edgealloc.models.training.digits import NEW, OLD, load_digits

        sets = [load_digits(OLD), load_digits(NEW)]
        facts["data"] = _digest(a for s in sets for a in (*s.inputs.values(), s.labels))
        facts["backbone"] = "digits"
    else:
        parts = [part for part in load_sources(setup.train_file, setup.test_file) if part is not None]
        words = json.dumps([[part.texts, part.label_names] for part in parts])
        facts["data"] = _digest([words.encode(), *(part.labels for part in parts)])
        facts["backbone"] = _backbone(setup.backbone)
    return {**facts, "lora": asdict(setup.lora or setup.usual_lora), **environment(device)}


def task_digest(task: Task) -> str:
    """Digest of a task as it stands: every example, who holds which, the frozen weights, the initial adapter.

    Parameters
    ----------
    task
        The task.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    data = [(name, value.cpu().numpy()) for name, value in task.feed.inputs.items()]
    data += [("labels", task.feed.labels.cpu().numpy()), ("validation", task.validation), ("test", task.test)]
    data += [(f"device {k}", share) for k, share in enumerate(task.devices)]
    data += [*task.initial.items(), *weight_arrays(task.handle.model, without=task.handle.parameters.values())]
    return _digest(piece for name, value in data for piece in (name.encode(), value))


def _backbone(name: str) -> str:
    """The weights of a backbone: a package's version, a digest of a folder's files, or the hub's commit."""
    if name in PACKAGED:
        return f"{name} {version(PACKAGED[name])}"
    if (folder := Path(name)).is_dir():
        digest = hashlib.sha256()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(folder)}:{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        return digest.hexdigest()
    from transformers import AutoConfig

    return f"{name} {getattr(AutoConfig.from_pretrained(name), '_commit_hash', None)}"


def _digest(pieces: Iterable[Any]) -> str:
    """SHA-256 over texts and arrays, with shapes and number formats."""
    digest = hashlib.sha256()
    for piece in pieces:
        if isinstance(piece, bytes):
            digest.update(f"{len(piece)}:".encode() + piece)
        else:
            array = np.ascontiguousarray(piece)
            digest.update(f"{array.dtype.str}{array.shape}:".encode() + array.tobytes())
    return digest.hexdigest()
