"""kind_of: the kind of a modality by its name."""

import pytest

from datamodules import readers
from datamodules.readers import READERS, kind_of


@pytest.mark.parametrize(
    ("modality", "kind"),
    [
        ("image", "image"),
        ("image_left", "image"),
        ("point_cloud", "point_cloud"),
        ("point_cloud_front", "point_cloud"),
        ("point_cloudy", "point"),  # no kind that there is
        ("imagery_1", "imagery"),
    ],
)
def test_a_modality_is_of_the_longest_kind_that_its_name_begins_with(monkeypatch, modality, kind):
    known = READERS | {"point_cloud": READERS["array"]}
    monkeypatch.setattr(readers, "READERS", known)
    assert kind_of(modality) == kind
