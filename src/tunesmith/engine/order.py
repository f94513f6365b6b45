"""The order of the training data: a pure function of seed and epoch, so that any step can be found again without replay."""

import hashlib

from tunesmith.methods.auto import steps_per_epoch


def order(n_rows: int, *, seed: int, epoch: int) -> list[int]:
    """Return the rows of an epoch (counted from 0), shuffled.

    Each row's place comes from a hash of (seed, epoch, row) alone: no generator is advanced, nothing has to be stored.
    """
    prefix = f"{seed}:{epoch}:".encode()

    def place(row: int) -> bytes:
        return hashlib.blake2b(prefix + str(row).encode(), digest_size=8).digest()

    return sorted(range(n_rows), key=place)


class Shuffled:
    """Which rows each step takes; the epoch in hand is kept, since shuffling a large file takes longer than a small step."""

    def __init__(self, n_rows: int, *, batch_size: int, seed: int) -> None:
        self._n_rows, self._batch_size, self._seed = n_rows, batch_size, seed
        self._epoch = -1
        self._order: list[int] = []

    def rows(self, step: int) -> list[int]:
        """Return the rows of a step, counted from 1."""
        epoch, index = divmod(step - 1, steps_per_epoch(self._n_rows, self._batch_size))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(self._n_rows, seed=self._seed, epoch=epoch)
        return self._order[index * self._batch_size : (index + 1) * self._batch_size]
