"""The public kit."""

import pytest

from flights import transforms
from skewguard.testing import check_transform
from skewguard.transforms import Transform
from skewguard.transforms.checks import check
from tests.corpus_transforms import bad, good


def test_proven_transforms_pass() -> None:
    """All of the example's transforms are proven, in two other processes too, and the call says what is known."""
    ours = [value for value in vars(transforms).values() if isinstance(value, Transform)]
    checked = check_transform(*ours)
    assert [one.transform.name for one in checked] == [one.name for one in ours]
    assert all(one.proven and one.operations > 0 for one in checked)


def test_an_unproven_transform_fails_the_users_test() -> None:
    """The failure is an AssertionError that holds the line, the example and the way to write it instead."""
    with pytest.raises(AssertionError) as caught:
        check_transform(good.ratio, bad.centred, bad.hashed, processes=False)
    text = str(caught.value)
    assert "return x - x.mean()" in text
    assert "for example: x=[0.0, 1.0]" in text
    assert "instead: zlib.crc32" in text
    assert "good:ratio" not in text


def test_another_process_tells_what_one_process_cannot() -> None:
    """A time zone of the machine shows only where another process has another one."""
    (here,) = check([bad.local_timestamp], processes=False)
    (everywhere,) = check([bad.local_timestamp])
    assert here.proven
    assert "gives other values in another process" in everywhere.explained()


def test_a_transform_without_a_name_of_its_own_is_checked_here() -> None:
    """What another process could not import, a function inside of a test for one, is checked in this process."""
    from skewguard.transforms import transform

    @transform
    def doubled(x: float) -> float:
        return x * 2.0

    assert check_transform(doubled)[0].proven
