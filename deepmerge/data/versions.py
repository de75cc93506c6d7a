"""Whether a data folder still holds what its .dvc file in git says."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from deepmerge.errors import InputError


def changes(folder: Path) -> list[str] | None:
    """What differs between `folder` and ``<folder>.dvc`` beside it, such as "modified: data/noisy_2filt_X.npy".

    None where there is no such .dvc file. DVC itself never tells: `dvc repro` runs on changed data and rewrites the
    .dvc file. That file has one digest for the whole folder; those of the single files are in DVC's cache, which a
    fresh clone does not have; there one sentence says that the folder changed. Raises InputError where DVC cannot
    answer.
    """
    record = folder.with_name(f"{folder.name}.dvc")
    if not record.is_file():
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
    differing = [
        f"{kind}: {path}"
        for kind, paths in sorted(uncommitted.items())
        for path in paths
        if kind != "unknown" and path.startswith(prefix)  # unknown: not listed anywhere, so perhaps what it should be
    ]
    files = [line for line in differing if not line.endswith(prefix)]
    return files or ([_undetailed(folder, record)] if differing else [])


def _undetailed(folder: Path, record: Path) -> str:
    """That a folder is not the recorded one, where DVC's cache does not tell which files differ."""
    [out] = [out for out in yaml.safe_load(record.read_text())["outs"] if Path(out["path"]).name == folder.name]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return (
        f"the folder has {len(files)} files, {sum(path.stat().st_size for path in files)} bytes, and is not the one "
        f"recorded, of {out.get('nfiles', 'unknown')} files, {out.get('size', 'unknown')} bytes; DVC's cache does not "
        f"hold the list of these, so that nothing tells which differ. 'dvc pull {record.name}' gets the recorded "
        f"folder where a remote has it, 'deepmerge data simulate' makes the demo sample, "
        f"'dvc add {folder.name}' records the folder that is here"
    )
