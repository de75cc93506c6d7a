"""Distances, neighbours and maps in the features of a network."""

import numpy as np
import pytest

from deepmerge.analysis import embedding
from deepmerge.errors import InputError

RNG = np.random.default_rng(4)
FEATURES = RNG.normal(size=(300, 6)) @ np.diag([5, 3, 1, 0.5, 0.01, 0])


def slow_neighbours(points, reference, count, owners, others):
    found = []
    for point, owner in zip(points, owners, strict=True):
        order = np.argsort(np.linalg.norm(reference - point, axis=1), kind="stable")
        found.append([i for i in order if others[i] != owner][:count])
    return np.array(found)


def test_training_images_have_variance_1_along_axes_that_are_at_right_angles():
    space = embedding.fit(FEATURES)
    np.testing.assert_allclose(np.cov(space.points.T), np.eye(space.points.shape[1]), atol=1e-9)
    np.testing.assert_allclose(space.axes @ space.axes.T, np.eye(len(space.axes)), atol=1e-9)


def test_axes_hold_99_percent_of_the_variance_and_not_one_more():
    space = embedding.fit(FEATURES)
    total = FEATURES.var(0, ddof=1).sum()
    held = np.cumsum(space.scales**2) / total
    assert held[-1] >= 0.99 > held[-2]


def test_a_space_is_read_as_it_was_written(tmp_path):
    space = embedding.fit(FEATURES)
    space.save(tmp_path / "space.npz")
    again = embedding.Space.load(tmp_path / "space.npz")
    np.testing.assert_array_equal(again.at(FEATURES[:3]), space.at(FEATURES[:3]))


def test_features_that_are_all_alike_or_undefined_make_no_space():
    with pytest.raises(InputError, match="all alike"):
        embedding.fit(np.ones((50, 4)))
    with pytest.raises(InputError, match="finite"):
        embedding.fit(np.full((5, 2), np.nan))


@pytest.mark.parametrize("views", [1, 4])
def test_neighbours_are_those_of_a_plain_search_among_other_galaxies(views):
    points = RNG.normal(size=(80, 3))
    galaxies = np.arange(80) // views
    near, away = embedding.neighbours(points, points, 5, galaxies, galaxies)
    np.testing.assert_array_equal(near, slow_neighbours(points, points, 5, galaxies, galaxies))
    np.testing.assert_allclose(away, np.linalg.norm(points[near] - points[:, np.newaxis], axis=-1))


def test_where_there_are_fewer_neighbours_the_farthest_stands_again():
    points = np.array([[0.0], [1.0], [3.0]])
    near, _ = embedding.neighbours(points[:1], points, 5, np.array([0]), np.array([0, 1, 2]))
    assert near.tolist() == [[1, 2, 2, 2, 2]]


def test_an_undefined_image_has_no_distance():
    away = embedding.distances(np.array([[np.nan, 0], [0, 0]]), RNG.normal(size=(20, 2)))
    assert np.isnan(away).tolist() == [True, False]


def test_the_farther_away_the_more_of_an_anomaly():
    reference = RNG.normal(size=(400, 2))
    away = embedding.distances(np.array([[0, 0], [3, 3], [9, 9]]), reference)
    assert away[0] < away[1] < away[2]


def test_a_map_keeps_groups_apart_and_repeats():
    points = np.concatenate([RNG.normal(c, 0.3, (60, 3)) for c in (-4, 0, 4)])
    placed = embedding.flat_map(points, 0)
    np.testing.assert_array_equal(placed, embedding.flat_map(points, 0))
    group = np.repeat([0, 1, 2], 60)
    near, _ = embedding.neighbours(placed, placed, 2)
    assert (group[near[:, 1]] == group).mean() > 0.98


def test_few_images_or_one_axis_are_placed_along_the_axes():
    points = RNG.normal(size=(30, 1))
    np.testing.assert_array_equal(embedding.flat_map(points, 0), np.column_stack([points, np.zeros(30)]))


def test_images_of_one_kind_cannot_be_told_apart_and_those_of_another_can():
    one = RNG.normal(size=(800, 3))
    assert abs(embedding.domain_auc(one, RNG.normal(size=(800, 3)), 0) - 0.5) < 0.05
    assert embedding.domain_auc(one, RNG.normal(2, 1, size=(800, 3)), 0) > 0.95
    assert np.isnan(embedding.domain_auc(one, one[:5], 0))


def test_new_images_in_pieces_are_as_far_as_in_one_and_half_of_the_distant_ones_count():
    space = embedding.fit(FEATURES)
    limit = float(np.percentile(embedding.distances(space.points, space.points), 99))
    space = embedding.Space(space.mean, space.axes, space.scales, space.points, limit)
    new = np.concatenate([FEATURES[:40], FEATURES[:40] + 100])
    whole, pieces = embedding.Newcomers(space), embedding.Newcomers(space)
    once = whole.add(new)
    np.testing.assert_allclose(np.concatenate([pieces.add(part) for part in np.array_split(new, 7)]), once)
    assert (once[40:] > 1).all()
    assert whole.distant == pieces.distant == int((once > 1).sum())
    assert whole.domain_auc() == pieces.domain_auc() > 0.6
