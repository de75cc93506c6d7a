"""The selection study says of whichever model it judges what nobody may overlook."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import texts

from deepmerge import config
from deepmerge.jobs.judged import Trained
from deepmerge.jobs.run import LEAKS
from deepmerge.studies.selection import study


@pytest.mark.parametrize(("split", "leaks"), [("rows", True), ("galaxy", False)])
def test_a_model_of_a_random_row_split_is_judged_with_a_warning(tmp_path, write_sample, split, leaks):
    experiment = config.load(str(write_sample()))
    data = study.base.datasets.read(experiment.data, experiment.name)
    tags = {"data_source": data.data_source, "split": split}
    run = SimpleNamespace(info=SimpleNamespace(run_id="a" * 32), data=SimpleNamespace(tags=tags))
    scores = data.catalogue[["galaxy_id", "stage"]].assign(
        split="test",
        transform=0,
        row=np.arange(len(data.labels)),
        label=data.labels,
        probability=np.random.default_rng(0).random(len(data.labels)),
    )
    scores.to_parquet(tmp_path / "predictions.parquet")
    mass = np.random.default_rng(1).normal(10.3, 0.3, len(data.labels))
    with (
        mock.patch.object(study, "find", autospec=True, return_value=Trained(run, experiment, data)),
        mock.patch.object(study.runs, "read_artifact", autospec=True, return_value=tmp_path / "predictions.parquet"),
        mock.patch.object(study, "properties", autospec=True, return_value={"log_mstar": mass}),
        mock.patch.object(study.base, "conduct", autospec=True) as conduct,
    ):
        study.measure_selection("tiny", "last", bins=2)
    measure, note = conduct.call_args.args[3], conduct.call_args.kwargs["note"]
    assert (LEAKS in (note or "")) == leaks  # the runner puts it behind the sentence
    figures = measure("b" * 32).figures
    assert set(figures) == set(study.STUDY.captions)
    for figure in figures.values():
        assert (LEAKS in " ".join(texts(figure))) == leaks
