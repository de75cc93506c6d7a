"""How many models have been scored on test images: the more there are, the less the best of them has proved."""

import mlflow
from mlflow.tracking import MlflowClient

from deepmerge.tracking import mutex

# Tag of the run whose model scored test images: their fingerprints, separated by spaces.
IMAGES = "test_images"


def count(run_id: str, images: str) -> None:
    """Note that the model of a run scored test images, of which `images` is the fingerprint."""
    client = MlflowClient()
    with mutex.only_one(f"looks-{run_id}"):
        known = client.get_run(run_id).data.tags.get(IMAGES, "").split()
        if images not in known:
            client.set_tag(run_id, IMAGES, " ".join([*known, images]))


def so_far(images: str) -> int:
    """How many models have been scored on these test images."""
    condition = f"tags.{IMAGES} LIKE '%{images}%'"
    return len(mlflow.search_runs(search_all_experiments=True, filter_string=condition, output_format="list"))
