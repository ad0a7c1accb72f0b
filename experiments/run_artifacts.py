"""The files that an attempt leaves beside its journal: where it ran, its best weights, its layers, its KL spectrum."""

import csv
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slurm.redaction import redacted
from tracking.files import read_json, write_atomic, write_json
from tracking.provenance import code, machine
from tracking.run_directory import AttemptDirectory, RunDirectory, StudyDirectory
from vae_core.data.batches import padded_size
from vae_core.models.summary import summary
from vae_core.trainer import Trainer

_LINE = ("cpu", "cpu_count", "gpu", "driver", "system", "python")  # what the journal keeps of the machine
_OF_THE_STUDY = ("commit", "dirty", "command")
_OF_THE_RUN = ("run", "study", "trial", "seed", "cell", "params", "data_fingerprint", "split_hashes")

_machine = functools.cache(machine)  # of this worker, asked once: nvidia-smi may take seconds
_code = functools.cache(code)


def machine_of(device: str | None) -> dict[str, Any]:
    """Return the hardware and the versions that an attempt runs on, as its journal keeps them."""
    return {
        **{name: _machine()[name] for name in _LINE},
        "device_name": _device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def write_provenance(study: StudyDirectory, run: RunDirectory, attempt: AttemptDirectory, device: str | None) -> str:
    """Write where an attempt's numbers come from: code, packages, machine, data, seed; return the file's path.

    The code is that of this process; where it has no checkout (a job runs a snapshot), it is the study's.
    """
    planned = read_json(study.provenance_file) if study.provenance_file.exists() else {}
    here = Path(__file__).parent
    own = _code(None if here.is_relative_to(study.code) else here)
    info = read_json(run.info_file)
    written: dict[str, Any] = {name: info.get(name) for name in _OF_THE_RUN}
    written |= {name: planned.get(name) for name in _OF_THE_STUDY}
    if own["commit"] is not None:
        written |= {"commit": own["commit"], "dirty": own["dirty"]}
        diff = "".join(redacted(line) for line in own["diff"].splitlines(keepends=True))
        if diff != planned.get("diff"):  # edited since the study began
            written["diff"] = diff
    written |= _machine() | machine_of(device) | {"device": device, "attempt": attempt.number}
    path = attempt.artifacts / "provenance.json"
    write_json(path, written)
    return str(path.relative_to(attempt.path))


def write_artifacts(attempt: AttemptDirectory, trainer: Trainer, vectors: Mapping[str, list[float]]) -> dict[str, str]:
    """Write best weights, KL spectrum and the table of layers; return name -> path in the attempt's folder."""
    buffer = io.BytesIO()
    torch.save(trainer.best_model().state_dict(), buffer)
    contents: dict[str, bytes | str] = {
        "best.pt": buffer.getvalue(),
        "kl_spectrum.csv": _spectrum_csv(vectors),
        "summary.txt": _layers(trainer),
    }
    for name, content in contents.items():
        write_atomic(attempt.artifacts / name, content)
    return {name: str((attempt.artifacts / name).relative_to(attempt.path)) for name in contents}


def _layers(trainer: Trainer) -> str:
    evaluator, dataset = trainer.evaluator, trainer.dataset
    size = padded_size(evaluator.typical_size, evaluator.multiple)
    return summary(trainer.config.model, dataset.channels, len(dataset.label_names), size)


def _spectrum_csv(vectors: Mapping[str, list[float]]) -> str:
    """Return one row per latent dimension, by descending KL, as measured on the test split."""
    names = {"kl_nats": "kl_per_dim", "variance": "latent_variance_per_dim", "mu_std": "mu_std_per_dim"}
    columns = {title: vectors[name] for title, name in names.items() if name in vectors}  # codes have no variance
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dimension", *columns])
    rows = zip(*columns.values(), strict=True)
    for dimension, row in sorted(enumerate(rows), key=lambda item: -item[1][0]):
        writer.writerow([dimension, *row])
    return text.getvalue()


def _device_name(device: str | None) -> str | None:
    return torch.cuda.get_device_name(device) if device and device.startswith("cuda") else None
