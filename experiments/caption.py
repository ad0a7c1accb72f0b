"""What a reader must know to read the table: units, seeds, selection, what is missing and why."""

from collections.abc import Sequence

from experiments.columns import LPIPS, MUTUAL_INFORMATION, PARAMETERS, Column, has_roughness, run_value
from experiments.comparability import comparable, is_saturated, most_information
from experiments.references import References, latent_dims
from experiments.results import CellResult, StudyResults
from experiments.run_result import RunResult
from experiments.table import counts_components

_MOST_NAMED = 12  # unfinished runs; the file of runs names them all


def caption(results: StudyResults, references: References, columns: Sequence[Column]) -> list[str]:
    """Return the sentences below the table, the general ones first."""
    parts = [
        _means(results),
        _units(results),
        _validation(columns),
        _verdicts(),
        _information(results, columns),
        _parameters(results, columns),
        _reference_words(results, references),
        _lpips(results),
        _partly_measured(results, columns),
        _comparability(results),
        *references.notes,
        _lengths(results),
        *_missing(results),
    ]
    return [part for part in parts if part]


def _validation(columns: Sequence[Column]) -> str:
    shown = [column.title for column in columns if column.key.startswith(("val/", "latent/"))]
    words = "of the validation split, by which the weights were selected: optimistic"
    return f"{', '.join(shown)}: {words}." if shown else ""


def _information(results: StudyResults, columns: Sequence[Column]) -> str:
    """Return what limits the mutual information, where it is shown, and which cells are at that limit."""
    if not any(column.key == MUTUAL_INFORMATION for column in columns):
        return ""
    words = "MI: mutual information of images and sampled codes over the test images, in nats, at most ln N"
    most = most_information(results)
    if most is None:
        return f"{words}."
    full = [cell.cell for cell in results.measured if is_saturated(results, cell)]
    why = "saturated (above ln N - 1, so it may be larger) and not compared"
    saturated = f"; {why} at {', '.join(full)}" if full else ""
    return f"{words} = {most:.2f}{saturated}."


def _parameters(results: StudyResults, columns: Sequence[Column]) -> str:
    counts = {run.parameters for cell in results.cells for run in cell.done}
    if len(counts) != 1 or None in counts or any(column.key == PARAMETERS for column in columns):
        return ""
    return f"Every model has {counts.pop():,} parameters."


def _lengths(results: StudyResults) -> str:
    """Return that finished runs differ in length, where they do."""
    done = [run for cell in results.cells for run in cell.done]
    lengths = {run.epochs for run in done}
    if len(lengths) < 2:
        return ""
    short = sum(run.epochs < max(lengths) for run in done)
    planned = {run.planned_epochs for run in done} - {None}
    early = f" of {planned.pop()} planned" if len(planned) == 1 else ""
    return (
        f"Finished runs differ in length: {min(lengths)} to {max(lengths)} epochs{early}; {short} of {len(done)} are "
        "shorter than the longest, so their test metrics rest on less training."
    )


def _setting(results: StudyResults, section: str, name: str) -> str:
    value = results.config.get(section, {}).get(name)
    return "swept" if results.is_swept(f"{section}.{name}") else str(value)


def _means(results: StudyResults) -> str:
    seeds = sorted({run.seed for run in results.runs})
    if not seeds:
        return "No run has been planned yet."
    named = f"seed{'s' if len(seeds) != 1 else ''} {', '.join(str(seed) for seed in seeds)}"
    select = _setting(results, "evaluate", "select")
    rule = "the epoch that evaluate.select chose (swept)" if select == "swept" else f"the epoch with the best {select}"
    most = max((len(cell.done) for cell in results.cells), default=0)
    interval = "± is half the 95% Student t interval over seeds" if most > 1 else "one seed: no interval"
    if not most:
        interval = "no run is finished yet"
    return f"Means over seeds ({named}); {interval}. Measured on {_images(results)}, with the weights of {rule}."


def _images(results: StudyResults) -> str:
    count = results.data.get("splits", {}).get("test", {}).get("images")
    return "the test split" if count is None or not results.one_data_set else f"N = {count} test images"


def _units(results: StudyResults) -> str:
    likelihood = _setting(results, "evaluate", "likelihood")
    scaled = ", its one scale fitted on training reconstructions" if likelihood in ("gaussian", "laplace") else ""
    dims = "/".join(str(dim) for dim in latent_dims(results))
    rough = "; roughness: standard deviation of the second difference of the training objective over epochs, nats"
    more = rough if has_roughness(results) else ""
    if _setting(results, "model", "family") in ("ae", "vq", "swept"):
        more += "; AU of ae and vq goes with the arbitrary scale of their codes"
    if _setting(results, "model", "bottleneck") in ("spatial", "swept"):
        more += "; of spatial latents the variance is over images and positions"
    return (
        "ELBO (beta = 1), reconstruction (negative log-likelihood) and KL in nats per image, evaluation "
        f"likelihood {likelihood}{scaled}; MSE in squared pixel units (pixels 0 to 1); AU: active units "
        f"(variance of mu over images above 0.01) of {dims} dimensions{more}. ↑ higher, ↓ lower is better."
    )


def _verdicts() -> str:
    return (
        "Verdict on posterior collapse: full (no active unit or KL under 0.5 nat), ignored (the decoder does "
        "not use z), partial (few units left), none."
    )


def _reference_words(results: StudyResults, references: References) -> str:
    if not references.rows:
        return ""
    without = not all(counts_components(results, cell) for cell in results.cells)
    but = "; none beside ae, vq and spatial latents, whose codes are of another size than PCA's" if without else ""
    return (
        "References are fitted on train: the mean image (as a VAE that ignores its input, KL 0), and PCA. "
        f"PCA(AU) MSE: PCA with as many components as the cell's runs have active units{but}."
    )


def _lpips(results: StudyResults) -> str:
    done = [run for cell in results.cells for run in cell.done]
    without = [run for run in done if LPIPS not in run.metrics]
    if not without:
        return ""
    reasons = sorted({_lpips_reason(run) for run in without})
    if len(without) == len(done):
        return f"No LPIPS: {'; '.join(reasons)}."
    return f"LPIPS of {len(done) - len(without)} of {len(done)} runs; of the others: {'; '.join(reasons)}."


def _lpips_reason(run: RunResult) -> str:
    return "switched off by evaluate.lpips" if run.lpips == "off" else (run.lpips or "not recorded").partition(";")[0]


def _partly_measured(results: StudyResults, columns: Sequence[Column]) -> str:
    """Return which means are of fewer runs than the cell's n says."""
    found = []
    for column in columns:
        for cell in results.measured if column.is_tested else ():
            count = sum(run_value(run, column.key) is not None for run in cell.done)
            if 0 < count < len(cell.done):
                found.append(f"{column.title} of {cell.cell}: {count} of {len(cell.done)} runs")
    if not found:
        return ""
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"Means of fewer runs than n: {'; '.join(found[:_MOST_NAMED])}{more}."


def _comparability(results: StudyResults) -> str:
    if not results.one_data_set:
        return (
            "Cells see different images or splits, so their numbers are not comparable; the references "
            "are those of the base config's data."
        )
    if len(results.bounds) > 1:
        return f"ELBOs of these families are not comparable: some are {'; some are '.join(sorted(results.bounds))}."
    if not comparable(results):
        return (
            "ELBOs and reconstructions under different evaluation likelihoods are not comparable (evaluate.* is swept)."
        )
    return ""


def _missing(results: StudyResults) -> list[str]:
    """Return what is not (yet) in the table: runs that failed or wait, cells not asked for."""
    parts = []
    unfinished = [(cell, run) for cell in results.cells for run in cell.runs if run.state != "done"]
    if unfinished:
        counts = ", ".join(f"{count} {state}" for state, count in results.counts().items())
        named = "; ".join(_named(cell, run) for cell, run in unfinished[:_MOST_NAMED])
        more = f"; and {len(unfinished) - _MOST_NAMED} more" if len(unfinished) > _MOST_NAMED else ""
        parts.append(f"Incomplete, {len(results.runs)} runs: {counts}. {named}{more}.")
    if results.planned > len(results.cells):
        parts.append(f"{len(results.cells)} of {results.planned} cells have been started.")
    return parts


def _named(cell: CellResult, run: RunResult) -> str:
    words = f"{cell.cell} seed={run.seed} {run.state}"
    if run.failure:
        reason = run.failure.splitlines()[0]
        return f"{words} ({reason[:97] + '...' if len(reason) > 100 else reason})"
    return f"{words}, epoch {run.epochs}" if run.epochs else words
