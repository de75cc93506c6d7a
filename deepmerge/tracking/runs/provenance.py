"""What a run comes from: code, machine, packages, and the process that made it."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from deepmerge.tracking import launcher

STARTED_IN = "started_in"  # tag with the folder where the command was given, at which relative paths begin


def environment() -> dict[str, str]:
    """Versions of Python and of all packages, and the changes against the commit where there are any, as texts."""
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower)
    machine = {"python": sys.version, "platform": platform.platform(), "processors": os.cpu_count()}
    texts = {"packages.txt": "\n".join(packages) + "\n", "machine.json": json.dumps(machine, indent=2)}
    difference = _git("diff", "HEAD")
    return {**texts, "uncommitted.diff": difference} if difference else texts


def code_state() -> dict[str, str]:
    """Tags of the commit of this code, and whether there are changes against it."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {"git_commit": "none", "git_dirty": "unknown"}
    # The pipeline writes these while it runs; data are told apart by their fingerprint, settings are on the run.
    written = [f":(exclude,top){path}" for path in ("dvc.lock", "data.dvc", "experiments/tuned")]
    changes = _git("status", "--porcelain", "--", ":/", *written)
    return {"git_commit": commit.strip(), "git_dirty": "yes" if changes else "no"}


def process() -> dict[str, str]:
    """Which process this is, from which folder it was started, and which DVC stage and experiment it is, if any."""
    tags = {
        launcher.PROCESS: launcher.named(),
        STARTED_IN: str(Path.cwd()),
        "dvc_stage": os.environ.get("DVC_STAGE"),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME"),
    }
    return {tag: value for tag, value in tags.items() if value}


def _git(*arguments: str) -> str | None:
    """Output of a git command on the folder of this code; None where it is not in a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
