import warnings
from functools import partial

import pytest
import rich.console

from deepmerge import progress


@pytest.mark.parametrize("widgets", [None, "ipywidgets"])
def test_a_notebook_without_ipywidgets_gets_neither_bar_nor_warning(monkeypatch, widgets):
    """rich would print that ipywidgets is missing in place of each bar."""
    bars = []
    monkeypatch.setattr(rich.console, "Console", partial(rich.console.Console, force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda name: widgets)
    monkeypatch.setattr("rich.progress.Progress.start", lambda bar: bars.append(bar.disable), raising=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress.progress_bar("Training", 3) as advance:
            advance(note="loss 0.5")
            advance(2)
    assert bars == [widgets is None]
