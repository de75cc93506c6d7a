"""What a run comes from: code, machine, packages, and the process that made it."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import mlflow

from deepmerge.tracking import processes

PROCESS = "process"  # tag with the process that writes a run, as `processes.own` names it
STARTED_IN = "started_in"  # tag with the folder where the command was given, at which relative paths begin


def log_environment() -> None:
    """Log versions of Python and of all packages, and the changes against the commit when there are any."""
    packages = sorted({f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}, key=str.lower)
    mlflow.log_text("\n".join(packages) + "\n", "environment/packages.txt")
    machine = {"python": sys.version, "platform": platform.platform(), "processors": os.cpu_count()}
    mlflow.log_text(json.dumps(machine, indent=2), "environment/machine.json")
    difference = _git("diff", "HEAD")
    if difference:
        mlflow.log_text(difference, "environment/uncommitted.diff")


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
    """From which folder this process was started, and which DVC stage and experiment it is, if any."""
    tags = {
        PROCESS: json.dumps(processes.own()),
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
