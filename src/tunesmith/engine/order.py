"""The order of the training data: a pure function of seed and epoch, so that any step can be found again without replay."""

import hashlib


def order(n_rows: int, *, seed: int, epoch: int) -> list[int]:
    """Return the rows of an epoch (counted from 0), shuffled.

    Each row's place comes from a hash of (seed, epoch, row) alone: no generator is advanced, nothing has to be stored.
    """
    prefix = f"{seed}:{epoch}:".encode()

    def place(row: int) -> bytes:
        return hashlib.blake2b(prefix + str(row).encode(), digest_size=8).digest()

    return sorted(range(n_rows), key=place)
