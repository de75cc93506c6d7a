"""Settings of noise, blur and adaptation: as a file and as the command line have them, in records, and refused."""

import json
from pathlib import Path

import pytest
import yaml

from deepmerge import config
from deepmerge.errors import InputError


@pytest.fixture
def load(tmp_path):
    def load(training=None, **overrides):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"data": {"images": "x.npy", "labels": "y.npy"}, "training": training or {}}))
        return config.load(str(path), overrides)

    return load


def test_without_them_nothing_is_added_and_records_of_before_mean_that(load):
    experiment = load()
    assert (experiment.training.noise, experiment.training.psf, experiment.training.adapt) == (None, None, None)
    record = experiment.model_dump(mode="json")
    for name in ("noise", "psf", "adapt"):
        del record["training"][name]
    assert config.from_record(record, "record") == experiment


@pytest.mark.parametrize(
    ("name", "value", "text", "flat"),
    [
        ("noise", {"sigma": 0.4}, "{sigma: 0.4}", {"sigma": [0.4]}),
        ("noise", {"sigma": [0.4, 1], "gain": 20}, "{sigma: [.4, 1], gain: 2e1}", {"sigma": [0.4, 1], "gain": [20]}),
        (
            "noise",
            {"sigma": [0, 1], "gain": [None, 3]},
            "{sigma: [0, 1], gain: [null, 3]}",
            {"sigma": [0, 1], "gain": [None, 3]},
        ),
        ("noise", {"like": "noisy"}, "{like: noisy}", {"like": "noisy"}),
        ("psf", 1.5, "1.5", (1.5,)),
        ("psf", [1, 2.5], "[1, 2.5]", (1, 2.5)),
        (
            "adapt",
            {"to": "noisy", "method": "dann", "weight": 0.1},
            "{to: noisy, method: dann, weight: 0.1}",
            {"to": "noisy", "method": "dann", "weight": 0.1},
        ),
    ],
)
def test_a_file_and_the_command_line_say_the_same_and_the_record_keeps_it(load, name, value, text, flat):
    written, typed = load({name: value}), load(**{name: text})
    assert written == typed
    assert written.settings()[name] == flat
    assert config.from_record(json.loads(json.dumps(written.model_dump(mode="json"))), "record") == written
    assert load().with_settings({name: flat}) == written


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"noise": 3}, "'training.noise' should be names with values, such as {sigma: 0.4}, {like: noisy}"),
        ({"noise": {"sigm": 1}}, "unknown key 'training.noise.sigm'; expected one of: sigma, gain, like"),
        ({"noise": {}}, "'training.noise' should say sigma, or like"),
        ({"noise": {"like": "noisy", "gain": 3}}, "should say sigma beside gain"),
        ({"noise": {"sigma": -1}}, "should have sigma at 0 or above"),
        ({"noise": {"sigma": 1, "gain": 0}}, "should have gain above 0, or null"),
        ({"noise": {"sigma": True}}, "'training.noise.sigma' should be a number, or a list with one for each filter"),
        ({"noise": {"sigma": []}}, "'training.noise.sigma' should be a number, or a list"),
        ({"noise": {"sigma": ["a"]}}, "'training.noise.sigma.0' should be a valid number"),
        ({"psf": 0}, "'training.psf' should be above 0"),
        ({"psf": [1, True]}, "'training.psf' should be a number, or a list"),
        ({"adapt": {"method": "mmd"}}, "'training.adapt.to' is missing"),
        (
            {"adapt": {"to": "noisy", "method": "mdd"}},
            "should be 'stretch', 'mmd', 'coral', 'sinkhorn' or 'dann'",
        ),
        ({"adapt": {"to": "noisy", "weight": 0}}, "'training.adapt.weight' should be a number above 0, or 'learned'"),
        ({"adapt": {"to": "noisy", "weight": "learnt"}}, "should be a number above 0, or 'learned', got 'learnt'"),
        (
            {"adapt": {"to": "noisy", "method": "dann", "weight": "learned"}},
            "'training.adapt' should have a weight that is learned with mmd, coral or sinkhorn alone",
        ),
        ({"adapt": {"to": "noisy", "wait": 1}}, "unknown key 'training.adapt.wait'; expected one of: to, method"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(load, training, said):
    with pytest.raises(InputError) as error:
        load(training)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_start_at_the_folder_of_the_file_and_names_and_overrides_stay(load, tmp_path):
    written = load({"noise": {"like": "sky.yaml"}, "adapt": {"to": "../far/x.npy"}}).training
    assert (Path(written.noise.like), Path(written.adapt.to)) == (tmp_path / "sky.yaml", tmp_path / "../far/x.npy")
    typed = load({"noise": {"like": "noisy"}}, adapt="{to: x.npy}").training
    assert (typed.noise.like, typed.adapt.to) == ("noisy", "x.npy")


def test_the_weight_of_dann_rises_as_published_and_the_others_stay():
    def rises(**settings):
        return config.Adapt(to="noisy", **settings).rises

    assert [rises(method=method) for method in ("mmd", "coral", "sinkhorn", "dann")] == [False, False, False, True]
    assert rises(method="mmd", ramp=True)
    assert not rises(method="dann", ramp=False)


@pytest.mark.parametrize("name", ["noise", "psf", "adapt"])
def test_none_of_them_is_searched(name):
    assert name not in config.SEARCHABLE
