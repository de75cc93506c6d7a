"""Measure it all, or some topics: `python -m benchmarks`, `python -m benchmarks training`."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import typer
from rich.console import Console

TOPICS = (
    "training",
    "inference",
    "Grad-CAM",
    "bootstrap",
    "start-up",
    "launching",
    "tracking",
    "cutouts",
    "cluster",
    "memory",
)
PAGE, PICTURE = Path("BENCHMARKS.md"), Path("docs/images/benchmark-memory.png")


def main(
    topics: Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(TOPICS)}. Default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Little work once: whether it runs, not how fast.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Renew BENCHMARKS.md, log to MLflow.")] = False,
) -> None:
    """Measure time and memory beside other ways to do the same work, and print a table.

    All of it takes about half an hour on two cores, and 9 GB of disk meanwhile.
    """
    chosen = set(topics or TOPICS)
    if unknown := chosen - set(TOPICS):
        raise typer.BadParameter(f"topics should be among {', '.join(TOPICS)}; got {', '.join(sorted(unknown))}")
    # TensorFlow takes seconds to import, which --help should not.
    from deepmerge.loading import quietly

    with quietly():
        from benchmarks import commands, cutouts, memory, peers, report, side_by_side, speed
        from deepmerge.plots import canvas

    console = Console(width=None if Console().is_terminal else 200)
    if peers.torch is None:
        console.print("Without PyTorch and tf-keras-vis, which come with: uv pip install -e '.[bench]'")
    rows = list(speed.run(chosen, quick))
    facts = list(commands.run(chosen, quick))
    of_rows, of_facts = cutouts.run(chosen, quick)
    rows, facts = rows + of_rows, [*facts, *of_facts, *side_by_side.run(chosen, quick)]
    picture = None
    if "memory" in chosen:
        with tempfile.TemporaryDirectory() as folder:
            usages = list(memory.run(Path(folder), memory.sizes(quick)))
            facts += memory.reading(Path(folder), 200 if quick else 5000)
        facts += memory.facts(usages)
        picture = memory.figure(usages)
    for table in report.table(rows, facts):
        console.print(table)
    if write:
        if picture is not None:
            canvas.save(picture, PICTURE)
        before = PAGE.read_text() if PAGE.exists() else ""
        PAGE.write_text(report.markdown(rows, facts, "make bench", str(PICTURE) if PICTURE.exists() else None, before))
        _log(rows, facts)


def _log(rows: list, facts: list) -> None:
    import mlflow

    from benchmarks import report
    from deepmerge.tracking import runs

    runs.connect()
    mlflow.set_experiment("deepmerge-benchmarks")
    with mlflow.start_run(run_name="benchmarks", tags={"machine": report.machine(), "packages": report.packages()}):
        for row in rows:
            mlflow.log_metric(_key("ratio", row.work, row.peer), row.ratio[0])
        for fact in facts:
            mlflow.log_metric(_key(fact.topic, fact.what), fact.value)
        mlflow.log_artifact(str(PAGE))
        if PICTURE.exists():
            mlflow.log_artifact(str(PICTURE))


def _key(*words: str) -> str:
    """A name that MLflow takes."""
    return " ".join("".join(c for c in word if c.isalnum() or c in "_-. /") for word in words)[:250]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
