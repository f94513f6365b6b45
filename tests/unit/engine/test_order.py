from hypothesis import given
from hypothesis import strategies as st

from tunesmith.engine.order import order


@given(n_rows=st.integers(0, 200), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 50))
def test_every_row_comes_once(n_rows: int, seed: int, epoch: int) -> None:
    assert sorted(order(n_rows, seed=seed, epoch=epoch)) == list(range(n_rows))


def test_seed_and_epoch_decide() -> None:
    first = order(50, seed=1, epoch=0)
    assert first == order(50, seed=1, epoch=0)
    assert first != order(50, seed=1, epoch=1)
    assert first != order(50, seed=2, epoch=0)
    assert first != sorted(first)


def test_a_rows_place_does_not_hang_on_the_others() -> None:
    assert [row for row in order(60, seed=1, epoch=0) if row < 50] == order(50, seed=1, epoch=0)
