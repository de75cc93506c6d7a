"""Whether the files of a model are those that were logged: who can write to the artifacts could plant others."""

import hashlib
import json
from pathlib import Path

from mlflow.entities import Run

from deepmerge.errors import InputError

FILES = "model_files_sha256"  # tag of a run: JSON with the SHA-256 of each file of its model
# What MLflow executes or loads lies here; MLmodel, which says so, is among the files with a digest.
READ = ("data", "code")


def digests(folder: Path) -> str:
    """The SHA-256 of each file of a model, by its path in the folder, as JSON."""
    found = {path.relative_to(folder).as_posix(): _digest(path) for path in _files(folder)}
    return json.dumps(found, sort_keys=True)


def require_unchanged(run: Run, folder: Path) -> None:
    """Raise InputError where files of a run's model were changed, are missing or were added since it was logged.

    What promotions and reports put beside them is left alone, and so are runs of before there were digests.
    """
    if FILES not in run.data.tags:
        return
    logged = json.loads(run.data.tags[FILES])
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name in sorted({*logged, *present}):
        if name not in present:
            what = "is missing"
        elif name in logged:
            what = "was changed" if _digest(present[name]) != logged[name] else ""
        else:
            what = "was added" if name.split("/")[0] in READ else ""
        if what:
            raise InputError(
                f"the model of run {run.info.run_id} should have the files that were logged, but {folder / name} "
                f"{what}; bring back the files as they were, or train anew"
            )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
