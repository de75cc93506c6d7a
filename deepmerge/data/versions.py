"""Whether a data folder still holds what its .dvc file in git says."""

import json
import subprocess
import sys
from pathlib import Path

from deepmerge.errors import InputError


def changes(folder: Path) -> list[str] | None:
    """What differs between `folder` and ``<folder>.dvc`` beside it, such as "modified: data/noisy_2filt_X.npy".

    None where there is no such .dvc file. DVC itself never tells: `dvc repro` runs on changed data and rewrites the
    .dvc file. Where neither DVC's cache nor its records list the files, the folder alone is named. Raises InputError
    when DVC cannot answer.
    """
    if not folder.with_name(f"{folder.name}.dvc").is_file():
        return None
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "data", "status", "--granular", "--json"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"DVC should say whether {folder} changed, but: {done.stderr.strip().splitlines()[-1]}")
    uncommitted: dict[str, list[str]] = json.loads(done.stdout).get("uncommitted", {})
    prefix = f"{folder.name}/"
    found = [
        f"{kind}: {path}" for kind, paths in sorted(uncommitted.items()) for path in paths if path.startswith(prefix)
    ]
    files = [line for line in found if not line.endswith(prefix)]
    return files or found
