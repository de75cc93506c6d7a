"""Let a model become champion of its data set, if it is better on the same test galaxies than the one that reigns."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs.judged import Judged, reload, split_of
from deepmerge.jobs.promote import figure, gate, out_of_fold
from deepmerge.jobs.promote.gate import Verdict
from deepmerge.jobs.promote.out_of_fold import FOLDS
from deepmerge.jobs.run import LEAKS, Results, warning, write_json
from deepmerge.model import prediction
from deepmerge.plots import canvas
from deepmerge.tracking import looks, registry, runs

TEST = "test"  # what a verdict rests on, or FOLDS
RECORD = "promotion.json"
FIGURE = "figures/promotion.png"


def promote(
    dataset: str, model: str, *, metric: str, on: str = TEST, force: str | None = None, out: Path | None = None
) -> Results:
    """Register a model and let it become champion of `dataset` if it passes the gate; the verdict goes to its run.

    Promoted when the interval of the difference in `metric` from the reigning champion (paired, over the same test
    galaxies, wider the more models were scored on them) lies wholly on the better side. `force` is a reason to promote
    it all the same. With `on` FOLDS both recipes are compared on all galaxies, as `evaluate --folds` scored them.
    `out` is a folder for ``promotion.json`` and ``promotion.png``. A refusal is a result. Raises InputError for a model
    of another data set, an unknown metric, and a champion whose run or model was deleted.
    """
    gate.check_metric(metric)
    if force is not None and not force.strip():
        raise InputError(f"force should be the reason for a promotion against the gate, got {force!r}")
    candidate = reload(dataset, model)
    run, name = candidate.run, config.name_of(dataset)
    if run.data.tags.get(runs.TRAINED) != "yes":
        raise InputError(
            f"model should be trained on its own, got run {run.info.run_id}: a model of one fold is no candidate, it "
            f"judges a recipe together with those of the others; promote one that 'deepmerge train {dataset}' made"
        )
    if run.data.tags["dataset"] != name:
        raise InputError(
            f"model should be one of {name!r}, got run {run.info.run_id} of {run.data.tags['dataset']!r}; "
            f"promote it under that name, or name another model"
        )
    version = registry.register(run)
    while True:
        reigning = registry.champion(version.name)
        is_champion = reigning is not None and reigning.version == version.version
        if is_champion and _is_recorded(run):
            return _champion_already(run, version, out)
        # A champion without a verdict was cut off before that was written, by a version that crowned first.
        rival = registry.previous(version.name) if is_champion else reigning
        verdict = verdict_on(candidate, rival, metric, force, on)
        results = _recorded(candidate, version, verdict, on, out)
        # Another promotion may have come in between: then the candidate has to beat that champion.
        if is_champion or verdict.decision == gate.REFUSED or registry.crown(version, reigning):
            return results


def verdict_on(
    candidate: Judged, reigning: registry.Version | None, metric: str, force: str | None, on: str = TEST
) -> Verdict:
    """The verdict on a candidate against the reigning version, or the trivial classifier where there is none."""
    if candidate.split.protocol == "rows":  # not a matter of opinion, so it cannot be forced
        return gate.without_comparison(metric, f"{LEAKS}. Only a model split by galaxy can be champion")
    champion, against = None, gate.TRIVIAL  # run and file of the model
    if reigning is not None:
        against = f"version {reigning.version}"
        try:
            run, file = registry.behind(reigning)
        except InputError as error:
            if force is None:
                raise
            return gate.without_comparison(metric, str(error), against, force)
        other = _difference_in_sample(candidate, run, on)
        if other is not None:
            objection = f"{against} has other {other} than the candidate, so they cannot be compared"
            objection += "" if force else "; --force REASON promotes it all the same"
            return gate.without_comparison(metric, objection, against, force)
        champion = run, file
    if on == FOLDS:
        return out_of_fold.verdict(candidate, champion and champion[0], metric, against, force)
    test = candidate.split.test.described(candidate.data)
    labels, galaxies = test["label"].to_numpy(), test["galaxy_id"].to_numpy()
    theirs = None
    if champion is not None:
        theirs = replace(candidate, run=champion[0], model=prediction.load(champion[1])).scores("test")
    ours = candidate.scores("test")
    look = looks.so_far(candidate.split.test.fingerprint(candidate.data))
    return gate.judge(labels, ours, theirs, galaxies, metric, against, force, look)


def _difference_in_sample(candidate: Judged, reigning: runs.Run, on: str) -> str | None:
    """Why the reigning model cannot be compared with the candidate: other data, or other test images."""
    if reigning.data.tags.get(runs.FINGERPRINT) != candidate.data.fingerprint:
        return "data"
    if on == FOLDS:
        return None
    theirs, ours = split_of(reigning).test, candidate.split.test
    return None if theirs.fingerprint(candidate.data) == ours.fingerprint(candidate.data) else "test images"


def _recorded(candidate: Judged, version: registry.Version, verdict: Verdict, on: str, out: Path | None) -> Results:
    """Write the verdict on run and version: tags, promotion.json and its figure."""
    results = {**_named(version), "decision": verdict.decision, "reason": verdict.reason, "metric": verdict.metric}
    sample = ""
    if verdict.images:
        for model in ("candidate", "reigning", "difference"):
            results |= getattr(verdict, model).flat(f"{model}_{verdict.metric}")
        results |= {"against": verdict.against, "images": verdict.images, "galaxies": verdict.galaxies}
        results |= {"on": on, "look": verdict.look, "level": verdict.level}
        what = "recipe" if on == FOLDS else "model"
        scored = f"one {what} has" if verdict.look == 1 else f"{verdict.look} {what}s have"
        sample = (
            f"{verdict.images} {'images in folds' if on == FOLDS else 'test images'} of {verdict.galaxies} galaxies, "
            f"95 % intervals over galaxies; {scored} been scored on them, so a {gate.percent(verdict.level)} interval "
            "decides"
        )
    results["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    note = warning(candidate.data, candidate.split)
    drawn = figure.draw(verdict, f"{version.name} version {version.version}", sample, note=note)
    with runs.reopened(candidate.run, at_once=True), runs.artifact_folder(".") as folder:
        for record, picture in [(folder / RECORD, folder / FIGURE), *_places(out)]:
            write_json(results, record)
            canvas.save(drawn, picture)
        registry.record(version, results, folder)
    return results


def _is_recorded(run: runs.Run) -> bool:
    try:
        runs.read_artifact(run, RECORD)
    except InputError:
        return False
    return True


def _champion_already(run: runs.Run, version: registry.Version, out: Path | None) -> Results:
    """Nothing is judged; `out` gets what was recorded when the version was."""
    for places in _places(out):
        for artifact, place in zip((RECORD, FIGURE), places, strict=True):
            with replacing(place) as aside:
                shutil.copyfile(runs.read_artifact(run, artifact), aside)
    return {**_named(version), "decision": "none", "reason": "it is the champion already"}


def _named(version: registry.Version) -> Results:
    return {"run_id": version.run_id, "model": version.name, "version": int(version.version)}


def _places(out: Path | None) -> list[tuple[Path, Path]]:
    """Where record and figure go for other programs."""
    return [] if out is None else [(out / RECORD, out / Path(FIGURE).name)]
