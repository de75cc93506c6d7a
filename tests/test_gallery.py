"""What a gallery shows of data, of a model and of files; and that its tags come back through an experiment."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.errors import InputError
from deepmerge.jobs.embed import EMBEDDING, embed
from deepmerge.jobs.evaluate import evaluate
from deepmerge.jobs.gallery.gallery import PAGE, gallery, of_data, of_file
from deepmerge.jobs.predict import predict
from deepmerge.jobs.train import train
from deepmerge.model import devices
from deepmerge.tracking import runs

pytestmark = pytest.mark.usefixtures("client")
devices.prepare()


def read(path):
    """The data of a page, its columns by name."""
    held = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])
    columns = {}
    for column in held["columns"]:
        values = column["values"]
        columns[column["name"]] = [column["names"][v] for v in values] if column["kind"] == "category" else values
    return held, columns


@pytest.fixture
def write(write_sample):
    """The small sample's experiment file, with settings of its data beside."""

    def write(**tables):
        path = write_sample(training={"epochs": 2, "batch_size": 16, "learning_rate": 3e-3})
        for name, text in tables.items():
            (path.parent / f"{name}.csv").write_text(text)
        text = path.read_text().replace("data:", "data:\n" + "".join(f"  {n}: {n}.csv\n" for n in tables), 1)
        path.write_text(text)
        return path

    return write


def test_a_data_set_without_a_model_is_shown_with_what_its_catalogue_says(write, tmp_path, caplog):
    results = gallery(str(write()), tmp_path / "page.html")
    held, columns = read(tmp_path / "page.html")
    assert results == {"images": 120, "tagged": 0, "written": str(tmp_path / "page.html")}
    assert columns["row"] == list(range(120))
    assert columns["galaxy_id"][:4] == ["100", "100", "101", "101"]
    assert columns["label"][47:49] == ["merger", "non-merger"]
    assert len(held["thumbnails"]["lengths"]) == 120
    assert held["maps"] is held["places"] is None
    assert held["sort"] == "row"


def test_tags_that_an_experiment_reads_are_there_again_with_the_label_that_was_meant(write, tmp_path):
    lines = "row,galaxy_id,label,tag\n0,100,merger,wrong label\n118,159,non-merger,artefact\n"
    path = write(relabel=lines, exclude=lines)
    gallery(str(path), tmp_path / "page.html")
    held, columns = read(tmp_path / "page.html")
    assert columns["label"][0] == "non-merger"  # as it is now
    assert held["tagged"] == [[0, "wrong label", "merger"], [118, "artefact", "non-merger"]]


def test_of_many_images_some_are_drawn_and_keep_their_rows(write):
    experiment = config.load(str(write()))
    page = of_data(datasets.read(experiment.data, "tiny"), experiment.data, most=20)
    rows = list(page.columns[0].values)
    assert len(rows) == len(page.thumbnails) == 20
    assert rows == sorted(set(rows))
    assert "20 images" in page.facts[0]
    assert "at random from 120" in page.facts[0]


@pytest.mark.parametrize("shape", [(5, 1, 32, 32), (5, 3, 200, 150)])
def test_a_file_of_images_is_shown_with_a_table(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    ids = [str(2**60 + 1), 'a, "b"', "<b>", "Ć", "7"]
    pd.DataFrame({"galaxy_id": ids, "probability": [0.1, 0.9, None, 0.5, 0.2]}).to_csv(tmp_path / "t.csv", index=False)
    page = of_file(tmp_path / "x.npy", tmp_path / "t.csv", None)
    columns = {column.name: column for column in page.columns}
    assert columns["galaxy_id"].values == ids
    assert columns["probability"].kind == "number"
    assert page.sort == "probability"
    assert max(page.thumbnails.height, page.thumbnails.width) <= 96


def test_what_is_none_of_the_three_is_refused(write, tmp_path):
    with pytest.raises(InputError, match="got 'nothing'"):
        gallery("nothing", tmp_path / "page.html")
    with pytest.raises(InputError, match=r"or a file of images, got nothing\.npy, where there is no file"):
        gallery("nothing.npy", tmp_path / "page.html")
    with pytest.raises(InputError, match=r"ending in \.html"):
        gallery(str(write()), tmp_path / "page.png")
    with pytest.raises(InputError, match="a table is for a file of images"):
        gallery(str(write()), tmp_path / "page.html", table=tmp_path / "t.csv")
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8)))
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="should have 2 rows"):
        gallery(str(tmp_path / "x.npy"), tmp_path / "page.html", table=tmp_path / "t.csv")


@pytest.mark.slow
def test_a_model_is_shown_with_scores_maps_and_its_embedding_and_predict_knows_its_training_images(
    write, tmp_path, client
):
    path = write(exclude="row\n7\n")
    experiment = config.load(str(path))
    run_id = train(experiment)["run_id"]
    evaluate(str(path), run_id)
    results = embed(str(path), "last", tmp_path / "embedding.parquet")
    table = pd.read_parquet(tmp_path / "embedding.parquet")
    scores = pd.read_parquet(runs.read_artifact(client.get_run(run_id), "predictions.parquet"))
    assert len(table) == len(scores) == 119
    np.testing.assert_allclose(table["probability"], scores["probability"], atol=1e-5)
    galaxy = table.set_index("row")["galaxy_id"]
    assert (galaxy.loc[table["neighbour_1"]].to_numpy() != table["galaxy_id"].to_numpy()).all()
    assert (table.loc[table["split"] == "validation", "anomaly"] <= 1.001).mean() > 0.9
    assert client.get_run(run_id).data.metrics["test_domain_auc"] == pytest.approx(results["test_domain_auc"])

    told = gallery(run_id, tmp_path / "page.html")
    held, columns = read(tmp_path / "page.html")
    assert told["run_id"] == run_id
    assert runs.read_artifact(client.get_run(run_id), PAGE).read_bytes() == (tmp_path / "page.html").read_bytes()
    by_row = scores.set_index("row")
    assert columns["row"] == list(range(120))
    assert columns["split"][7] == "left out"
    assert columns["probability"][7] is None
    seen = [row for row in range(120) if row != 7]
    np.testing.assert_allclose(
        [columns["probability"][row] for row in seen], by_row["probability"].reindex(seen), rtol=1e-4, atol=1e-6
    )
    error = np.abs(by_row["label"] - by_row["probability"])
    of_galaxy = error.groupby(by_row["galaxy_id"]).mean()
    np.testing.assert_allclose(columns["galaxy_error"][20], of_galaxy[110], rtol=1e-4)
    assert [columns["split"][row] for row in seen] == by_row["split"].reindex(seen).tolist()
    assert len(held["maps"]["lengths"]) == len(held["neighbours"]) == 120
    assert held["neighbours"][0][0] == table.set_index("row")["neighbour_1"][0]
    assert held["places"][0][7] is None

    predict(experiment.data.images, run_id, tmp_path / "scores.parquet")
    new = pd.read_parquet(tmp_path / "scores.parquet").set_index("row")["anomaly"]
    validated = table[table["split"] == "validation"].set_index("row")["anomaly"]
    np.testing.assert_allclose(new.reindex(validated.index), validated, atol=1e-3)
    assert EMBEDDING in {entry.path for entry in client.list_artifacts(run_id)}
