"""An infinite shuffled order, addressed by position: position p is image perm(seed, p // n)[p % n].

Nothing has to be replayed to start anywhere, so a resumed run goes on with the very next image.
Philox' raw stream is fixed by its paper (Salmon et al. 2011), so the order outlives numpy versions.
"""

import numpy as np

from stylegan_tl.data.errors import DataError

__all__ = ["Order", "flips", "order", "stream"]

_FLIP_STREAM = 2**64 - 1  # second half of the Philox key; epochs count up from 0


def order(seed: int, n: int, start: int, count: int) -> np.ndarray:
    """Image numbers in [0, n) at positions start … start + count - 1: int64 [count]."""
    return Order(seed, n)(start, count)


def flips(seed: int, start: int, count: int) -> np.ndarray:
    """Whether the image at each position is mirrored (probability 1/2): bool [count]."""
    block, skip = divmod(start, 4)  # one Philox counter step gives four numbers
    raw = stream(seed, _FLIP_STREAM, counter=block).random_raw(skip + count)
    return (raw[skip:] & 1).astype(bool)


def stream(seed: int, number: int, *, counter: int = 0) -> np.random.Philox:
    """Random stream `number` of `seed`; both from 0 to 2**64 - 1."""
    if not 0 <= seed < 2**64:
        raise DataError(f"seed={seed}: expected a whole number from 0 to 2**64 - 1")
    return np.random.Philox(key=np.array([seed, number], np.uint64), counter=counter)


class Order:
    """`order` for one (seed, n); remembers the permutations of the last two epochs asked for."""

    def __init__(self, seed: int, n: int) -> None:
        if n < 1:
            raise DataError("the data set has no image to train on")
        self.seed, self.n = seed, n
        self._known: dict[int, np.ndarray] = {}

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Image numbers at positions start … start + count - 1: int64 [count]."""
        positions = np.arange(start, start + count)
        epochs, places = np.divmod(positions, self.n)
        parts = [self._permutation(int(e))[places[epochs == e]] for e in np.unique(epochs)]
        return np.concatenate(parts) if parts else positions

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._known:
            raw = stream(self.seed, epoch).random_raw(self.n)
            recent = list(self._known.items())[-1:]
            self._known = dict([*recent, (epoch, np.argsort(raw, kind="stable"))])
        return self._known[epoch]
