"""Whether a data folder still holds what its .dvc file in git says."""

import json
import subprocess
import sys
from pathlib import Path

from deepmerge.errors import InputError


def changes(folder: Path) -> list[str] | None:
    """What differs between `folder` and ``<folder>.dvc`` beside it, such as "modified: data/noisy_2filt_X.npy".

    None where there is no such .dvc file. DVC itself never tells: `dvc repro` runs on changed data and rewrites the
    .dvc file. The folder alone is named where DVC has not cached it and so cannot list its files, as in a fresh clone.
    Raises InputError when DVC cannot answer.
    """
    if not folder.with_name(f"{folder.name}.dvc").is_file():
        return None
    whole = _uncommitted(folder)
    files = _uncommitted(folder, "--granular") if whole else []
    return [line for line in files if not line.startswith("unknown") and not line.endswith("/")] or whole


def _uncommitted(folder: Path, *options: str) -> list[str]:
    """One line for each difference that DVC sees, "kind: path"."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "data", "status", "--json", *options],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"DVC should say whether {folder} changed, but: {done.stderr.strip().splitlines()[-1]}")
    kinds: dict[str, list[str]] = json.loads(done.stdout).get("uncommitted", {})
    return [f"{kind}: {path}" for kind in sorted(kinds) for path in kinds[kind] if path.startswith(f"{folder.name}/")]
