"""Batches for Lightning: infinite, in an order that is a function of (seed, nimg) alone."""

from collections.abc import Callable, Iterator

import numpy as np
import pytorch_lightning as pl
import torch

from stylegan_tl.data.device import to_float
from stylegan_tl.data.errors import DataError
from stylegan_tl.data.packed import PackedDataset
from stylegan_tl.data.sampler import Order, flips

__all__ = ["Batches", "ImageData"]


class ImageData(pl.LightningDataModule):
    """Feeds `dataset[indices]` for ever, beginning at the module's `nimg`.

    `batch_size` counts the images of one device; W devices read W × batch_size per step, each its
    own part. It may be a function of the position (nimg) at which the iteration begins. A batch
    is `image` uint8 [B, 3, R, R], `label` float32 [B, label_dim], `flip` bool [B], and `index`
    int64 [B]: the place among `indices`, and for a mirror image len(indices) more. `to_float`
    turns the images into floats on the device.
    """

    def __init__(
        self,
        dataset: PackedDataset,
        indices: np.ndarray,
        *,
        batch_size: int | Callable[[int], int],
        seed: int,
        xflip: bool,
    ) -> None:
        super().__init__()
        if isinstance(batch_size, int) and batch_size < 1:
            raise DataError(f"batch_size={batch_size}: expected at least 1")
        self.dataset = dataset
        self.indices = np.asarray(indices, np.int64)
        self.order = Order(seed, len(self.indices))
        self.batch_size, self.seed, self.xflip = batch_size, seed, xflip

    def train_dataloader(self) -> "Batches":
        """Batches of this process, from the position that the model has reached."""
        if self.trainer is None:
            return Batches(self, start=lambda: 0)
        rank, world = self.trainer.global_rank, self.trainer.world_size
        model = self.trainer.lightning_module
        return Batches(self, start=lambda: int(model.nimg), rank=rank, world=world)

    def on_after_batch_transfer(
        self, batch: dict[str, torch.Tensor], dataloader_idx: int
    ) -> dict[str, torch.Tensor]:
        """Mirror and convert on the device: `image` becomes float32 [B, 3, R, R] in [-1, 1]."""
        image = to_float(batch["image"], batch["flip"])
        return {"image": image, "label": batch["label"], "index": batch["index"]}

    def size_at(self, nimg: int) -> int:
        """Images of one device in the iteration that begins at `nimg`."""
        return self.batch_size if isinstance(self.batch_size, int) else self.batch_size(nimg)

    def batch(self, start: int, size: int | None = None) -> dict[str, torch.Tensor]:
        """The batch of `size` images whose first is at position `start`."""
        size = self.size_at(start) if size is None else size
        places = self.order(start, size)
        chosen = self.indices[places]
        flip = flips(self.seed, start, size) & self.xflip
        return {
            "image": torch.from_numpy(self.dataset.images(chosen)),
            "label": torch.from_numpy(self.dataset.labels(chosen)),
            "flip": torch.from_numpy(flip),
            "index": torch.from_numpy(places + flip * len(self.indices)),
        }


class Batches:
    """The infinite loader of one process. `start` is asked when iteration begins, not before.

    A plain iterable: to a memory map a `DataLoader` adds only copies, processes and warnings.
    """

    def __init__(
        self, data: ImageData, *, start: Callable[[], int], rank: int = 0, world: int = 1
    ) -> None:
        self.data, self.start, self.rank, self.world = data, start, rank, world

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        nimg = self.start()
        while True:
            size = self.data.size_at(nimg)
            yield self.data.batch(nimg + self.rank * size, size)
            nimg += self.world * size
