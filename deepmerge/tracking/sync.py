"""Send what waits in the outbox, when that is asked for."""

import mlflow

from deepmerge.errors import Failed
from deepmerge.tracking import outbox, runs
from deepmerge.tracking.runs import delivery


def sync() -> dict[str, int]:
    """Send what waits for the tracking store, which MLFLOW_TRACKING_URI names; returns how many parcels were delivered.

    Raises Failed where some could not be, or belong to processes that still run, and where others wait for other
    stores.
    """
    runs.choose_store()
    url = mlflow.get_tracking_uri()
    place = outbox.place(runs.project(), url)
    sent, failed = outbox.send_left(place, delivery.deliver)
    for folder, why in failed.items():
        raise Failed(f"{len(failed)} parcels could not be delivered to {runs.store()}, {folder} among them: {why}")
    if others := outbox.elsewhere(runs.project(), url):
        raise Failed(
            f"delivered {sent} to {runs.store()}; others wait for {', '.join(others)}: set MLFLOW_TRACKING_URI to that"
        )
    return {"delivered": sent}
