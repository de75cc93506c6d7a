import pandas as pd
import pytest

from deepmerge.studies.shortcuts.study import NEAR, near, sentence


def measured(**aucs):
    """Metrics of the study's run."""
    return {f"{name}_test_auc": auc for name, auc in aucs.items()} | {"folds": 5.0, "noise_test_balanced_accuracy": 1.0}


def test_a_statistic_near_the_network_is_named():
    warning = near(measured(quantiles=0.88, edge_frame=0.9, all_together=0.95), 0.96)
    assert warning == "Possible shortcut: edge frame alone, without any shape: AUC 0.900, the network 0.960"


@pytest.mark.parametrize("network", [0.5, 0.4, float("nan")])
def test_a_network_no_better_than_guessing_has_no_shortcut(network):
    assert near(measured(quantiles=0.9), network) is None


def test_what_is_near_is_a_share_of_what_the_network_gains():
    assert near(measured(noise=0.5 + NEAR * 0.3 + 1e-9), 0.8)
    assert near(measured(noise=0.5 + NEAR * 0.3 - 1e-3), 0.8) is None
    assert near({}, 0.9) is None


def test_the_sentence_names_the_best_group_and_not_all_together():
    names = ["fluxes", "noise", "all together"]
    table = pd.DataFrame(
        {"statistics": names, "test_auc": [0.6, 0.7, 0.9], "test_auc_low": [0.5] * 3, "test_auc_high": [0.8] * 3}
    )
    assert sentence(table).startswith("Without any shape, AUC **0.700 [0.500, 0.800]** from noise alone, the best of 2")
