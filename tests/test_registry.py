import json
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelOutput
from mlflow.tracking import MlflowClient

from deepmerge.errors import InputError
from deepmerge.tracking import registry, runs

pytestmark = pytest.mark.usefixtures("client")


TAGS = {"data_source": "simulated", "data_fingerprint": "d" * 32, "split": "galaxy", "split_fingerprint": "s" * 32}
SETTINGS = {"dropout": 0.3, "l2": 1e-4, "learning_rate": 2e-3, "epochs": 20}


@pytest.fixture
def trained(client, tmp_path):
    """Make a finished run with a model, of which only the files' names are real: registering reads none."""

    def make(dataset, **metrics):
        with runs.new_run(f"{dataset}-default", {"dataset": dataset, **TAGS, runs.TRAINED: "yes"}) as run_id:
            runs.log_parameters(SETTINGS)
            model = client.create_logged_model(mlflow.get_run(run_id).info.experiment_id, "model", run_id)
            (tmp_path / "model" / "data").mkdir(parents=True, exist_ok=True)
            (tmp_path / "model" / "data" / "model.keras").write_text("weights")
            client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
            client.finalize_logged_model(model.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
            runs.log_metrics(metrics)
        return client.get_run(run_id)

    return make


@pytest.fixture
def name(request):
    """A data set of its own for each test."""
    return request.node.name.split("[")[0][5:50]


def versions(client, name):
    return client.search_model_versions(f"name = 'deepmerge-{name}'")


def champions(client, name):
    return {alias: int(number) for alias, number in client.get_registered_model(f"deepmerge-{name}").aliases.items()}


EVALUATED = {"test_auc": 0.96213, "test_auc_low": 0.93, "test_auc_high": 0.985, "test_purity": 0.7}


def test_a_version_carries_origin_settings_and_headline_metrics_of_its_run(client, trained, name):
    run = trained(name, **EVALUATED)
    version = registry.register(run)
    assert (version.name, int(version.version), version.run_id) == (f"deepmerge-{name}", 1, run.info.run_id)
    expected = {"dataset": name, **TAGS, "dropout": "0.3", "l2": "0.0001", "learning_rate": "0.002"}
    expected |= {"test_auc": "0.9621", "test_auc_low": "0.9300", "test_auc_high": "0.9850"}
    assert expected.items() <= version.tags.items()
    assert version.tags["git_commit"] == run.data.tags["git_commit"]
    assert not {"epochs", "test_purity", "params", "study"} & set(version.tags)
    assert "**test AUC 0.962 [0.930, 0.985]**" in version.description
    assert runs.find(f"models:/deepmerge-{name}/1", name).info.run_id == run.info.run_id


def test_what_tuning_left_on_the_run_is_taken_over(client, trained, name):
    run = trained(name)
    client.log_param(run.info.run_id, "params", "tuned")
    client.set_tag(run.info.run_id, "study", "noisy-log_loss")
    tags = registry.register(run).tags
    assert (tags["params"], tags["study"]) == ("tuned", "noisy-log_loss")


def test_the_model_itself_names_its_version(client, trained, name):
    run = trained(name)
    registry.register(run)
    registry.register(run)
    model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": f"deepmerge-{name}", "version": 1}]


def test_a_run_is_registered_once_and_its_version_learns_what_the_run_has_learnt(client, trained, name):
    run = trained(name)
    first = registry.register(run)
    assert "not evaluated yet" in first.description
    assert "test_auc" not in first.tags
    with runs.reopened(run):
        runs.log_metrics(EVALUATED)
    again = registry.register(run)
    assert again.version == first.version
    assert again.tags["test_auc"] == "0.9621"
    assert "0.962" in again.description
    assert int(registry.register(trained(name)).version) == 2
    assert len(versions(client, name)) == 2


def test_a_run_that_is_registered_many_times_at_once_has_one_version(client, trained, name):
    run = trained(name)
    found, ready = [], threading.Barrier(4)

    def register():
        ready.wait()
        found.append(int(registry.register(run).version))

    workers = [threading.Thread(target=register) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert found == [1] * 4
    assert len(versions(client, name)) == 1


def test_a_run_without_a_model_is_not_registered(client, name):
    with runs.new_run(name, {"dataset": name}) as run_id:
        pass
    with pytest.raises(InputError, match="should hold a trained model"):
        registry.register(client.get_run(run_id))
    assert versions(client, name) == []


def test_a_new_champion_leaves_the_old_one_as_the_previous(client, trained, name):
    first, second, third = (registry.register(trained(name)) for _ in range(3))
    assert registry.champion(f"deepmerge-{name}") is None
    assert registry.crown(first, None)
    assert champions(client, name) == {"champion": 1}
    assert registry.crown(second, registry.champion(first.name))
    assert registry.crown(third, registry.champion(first.name))
    assert champions(client, name) == {"champion": 3, "previous": 2}


def test_who_measured_against_another_than_the_reigning_champion_is_not_crowned(client, trained, name):
    first, second, third = (registry.register(trained(name)) for _ in range(3))
    assert registry.crown(first, None)
    assert not registry.crown(second, None)
    assert registry.crown(second, first)
    assert not registry.crown(third, first)
    assert champions(client, name) == {"champion": 2, "previous": 1}


def test_of_many_who_beat_the_same_champion_one_is_crowned(client, trained, name):
    candidates = [registry.register(trained(name)) for _ in range(4)]
    crowned, ready = [], threading.Barrier(4)

    def attempt(version):
        ready.wait()
        if registry.crown(version, None):
            crowned.append(int(version.version))

    workers = [threading.Thread(target=attempt, args=[version]) for version in candidates]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert champions(client, name) == {"champion": crowned[0]}
    assert len(crowned) == 1


def test_a_rollback_swaps_champion_and_previous_and_a_second_one_swaps_back(client, trained, name):
    first, second = (registry.register(trained(name)) for _ in range(2))
    registry.crown(first, None)
    registry.crown(second, first)
    found = registry.rollback(name)
    assert found == {"model": f"deepmerge-{name}", "champion": "version 1", "previous": "version 2"}
    assert champions(client, name) == {"champion": 1, "previous": 2}
    tags = {int(version.version): version.tags["rollback"] for version in versions(client, name)}
    assert tags[1].endswith("champion again in place of version 2")
    assert tags[2].endswith("version 1 is champion again")
    registry.rollback(name)
    assert champions(client, name) == {"champion": 2, "previous": 1}


class Killed(BaseException):
    """In place of the end of a process."""


WRITES = ("set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_tag")


@pytest.fixture
def cut_off(monkeypatch):
    """Let a call be cut off before the n-th of its WRITES; returns whether it was."""

    def cut(place, do, *given):
        numbers = iter(range(1, 100))

        def counted(real):
            def write(*arguments):
                if next(numbers) == place:
                    raise Killed
                return real(*arguments)

            return write

        with pytest.MonkeyPatch.context() as patch:
            for name in WRITES:
                patch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
            try:
                do(*given)
            except Killed:
                return True
        return False

    return cut


def test_a_rollback_or_promotion_that_is_cut_off_anywhere_forgets_no_champion(client, trained, name, cut_off):
    first, second, third = (registry.register(trained(name)) for _ in range(3))
    for place in range(1, 10):
        registry.crown(first, registry.champion(first.name))
        registry.crown(second, first)
        was_cut_off = cut_off(place, registry.rollback, name)
        registry.register(client.get_run(first.run_id))  # any command that takes the lock
        swapped = {"champion": 1, "previous": 2}
        assert champions(client, name) == (swapped if place > 1 else {"champion": 2, "previous": 1})
        if not was_cut_off:
            break
    assert place > 4
    for place in range(1, 10):
        registry.crown(first, registry.champion(first.name))
        registry.crown(second, first)
        was_cut_off = cut_off(place, registry.crown, third, second)
        registry.register(client.get_run(first.run_id))
        crowned = {"champion": 3, "previous": 2}
        assert champions(client, name) == (crowned if place > 1 else {"champion": 2, "previous": 1})
        if not was_cut_off:
            break
    assert place > 4
    assert not client.get_registered_model(first.name).tags.get(registry.MOVING)


@pytest.mark.parametrize(
    ("crowned", "found"), [(0, "found no champion"), (1, "found champion version 1 and no previous one")]
)
def test_a_rollback_to_nobody_is_explained(client, trained, name, crowned, found):
    name = f"{name}-{crowned}"
    if crowned:
        registry.crown(registry.register(trained(name)), None)
    with pytest.raises(InputError, match=f"needs a champion of deepmerge-{name} .*{found}.*'deepmerge promote {name}'"):
        registry.rollback(name)


def test_a_promotion_that_a_rollback_came_before_is_not_crowned(client, trained, name):
    first, second, third = (registry.register(trained(name)) for _ in range(3))
    registry.crown(first, None)
    registry.crown(second, first)
    registry.rollback(name)
    assert not registry.crown(third, second)
    assert registry.crown(third, first)


def test_run_and_file_behind_a_version_are_found(trained, name):
    run = trained(name)
    found, path = registry.behind(registry.register(run))
    assert found.info.run_id == run.info.run_id
    assert path.read_text() == "weights"


@pytest.mark.parametrize(
    ("lost", "said"), [("run", "run .{32} was deleted"), ("model", "not found"), ("files", "model.keras|No such file")]
)
def test_what_was_deleted_behind_a_version_is_named(client, trained, name, lost, said):
    run = trained(f"{name}-{lost}")
    version = registry.register(run)
    if lost == "run":
        client.delete_run(run.info.run_id)
    elif lost == "model":
        client.delete_logged_model(run.outputs.model_outputs[0].model_id)
    else:
        runs.model_file(run).unlink()
    with pytest.raises(InputError, match=f"version 1, the champion, should have .*({said}).*'mlflow runs restore'"):
        registry.behind(version)


def test_a_verdict_stands_on_version_run_and_model_and_replaces_the_one_before(client, trained, name, tmp_path):
    run = trained(name)
    version = registry.register(run)
    folder = tmp_path / "verdict"
    folder.mkdir()
    (folder / "promotion.json").write_text("{}")
    verdicts = {"decision": "refused", "candidate_auc": 0.5, "metric": "auc"}, {"decision": "promoted", "metric": "f1"}
    for verdict in verdicts:
        with runs.reopened(run):
            registry.record(version, verdict, folder)
    expected = {"promotion_decision": "promoted", "promotion_metric": "f1"}
    for tags in (client.get_run(run.info.run_id).data.tags, versions(client, name)[0].tags):
        assert {key: value for key, value in tags.items() if key.startswith("promotion_")} == expected
        assert tags["dataset"] == name
    assert (runs.model_file(run).parents[1] / "promotion.json").read_text() == "{}"


def test_the_listing_shows_each_version_with_aliases_metrics_and_decision(client, trained, name):
    first, second = registry.register(trained(name, **EVALUATED)), registry.register(trained(name))
    registry.crown(first, None)
    registry.crown(second, first)
    client.set_model_version_tag(second.name, second.version, "promotion_decision", "forced")
    client.set_registered_model_alias(second.name, "serving", second.version)
    newest, oldest = registry.listing(name)
    assert list(newest) == list(oldest)
    assert (newest["model"], newest["version"], newest["aliases"]) == (f"deepmerge-{name}", "2", "champion, serving")
    assert (newest["test_auc"], newest["decision"], newest["run_id"]) == ("", "forced", second.run_id)
    assert (oldest["version"], oldest["aliases"], oldest["test_auc"]) == ("1", "previous", "0.962 [0.930, 0.985]")
    assert (oldest["split"], oldest["data_source"], oldest["decision"]) == ("galaxy", "simulated", "")


def test_the_listing_knows_no_models_of_others(client, trained, name):
    registry.register(trained(name))
    client.create_registered_model("somebody-else")
    models = {line["model"] for line in registry.listing()}
    assert f"deepmerge-{name}" in models
    assert all(model.startswith("deepmerge-") for model in models)
    assert {line["model"] for line in registry.listing(name)} == {f"deepmerge-{name}"}


def test_the_listing_of_an_empty_store_is_empty(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    assert registry.listing() == []
    assert Path("mlflow.db").exists()


def test_versions_are_listed_by_number_the_newest_first(client, trained, name):
    run = trained(name)
    client.create_registered_model(f"deepmerge-{name}")
    source = f"models:/{run.outputs.model_outputs[0].model_id}"
    for _ in range(12):
        client.create_model_version(f"deepmerge-{name}", source, run.info.run_id)
    assert [line["version"] for line in registry.listing(name)] == [str(number) for number in range(12, 0, -1)]
