"""How often test images have been scored: the more often they were, the less a model chosen by them has proved."""

import mlflow
from mlflow.tracking import MlflowClient

from deepmerge.tracking import mutex

# Tags of the run that scored test images: fingerprints of these, and how often it scored each, separated by spaces.
IMAGES, LOOKS = "test_images", "test_looks"


def count(run_id: str, images: str) -> None:
    """Count that a run scores test images, of which `images` is the fingerprint."""
    client = MlflowClient()
    with mutex.only_one(f"looks-{run_id}"):
        looks = _of(client.get_run(run_id).data.tags)
        looks[images] = looks.get(images, 0) + 1
        client.set_tag(run_id, LOOKS, " ".join(map(str, looks.values())))
        client.set_tag(run_id, IMAGES, " ".join(looks))


def so_far(images: str) -> int:
    """How often all runs together have scored these test images."""
    condition = f"tags.{IMAGES} LIKE '%{images}%'"
    runs = mlflow.search_runs(search_all_experiments=True, filter_string=condition, output_format="list")
    return sum(_of(run.data.tags).get(images, 0) for run in runs)


def _of(tags: dict[str, str]) -> dict[str, int]:
    numbers = map(int, tags.get(LOOKS, "").split())
    return dict(zip(tags.get(IMAGES, "").split(), numbers, strict=False))  # one tag is written before the other
