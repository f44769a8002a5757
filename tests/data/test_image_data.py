"""What Lightning gets: the right images, from the right place, without a warning."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from stylegan_tl.data.device import to_float
from stylegan_tl.data.errors import DataError
from stylegan_tl.data.module import ImageData
from stylegan_tl.data.open import open_dataset
from stylegan_tl.data.sampler import flips, order


@pytest.fixture
def dataset(make_folder, tmp_path):
    folder = make_folder(7, "a")
    make_folder(6, "b", start=7)
    return open_dataset({"kind": "folder", "path": folder}, resolution=8, cache=tmp_path)


INDICES = np.array([0, 2, 3, 5, 8, 9, 11])


def _data(dataset, **changes) -> ImageData:
    settings = {"batch_size": 3, "seed": 5, "xflip": True} | changes
    return ImageData(dataset, INDICES, **settings)


def _take(data: ImageData, count: int) -> list[dict]:
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def test_batches_are_the_ordered_images_with_their_labels(dataset) -> None:
    batches = _take(_data(dataset), 8)
    chosen = INDICES[order(5, 7, 0, 24)].reshape(8, 3)
    for batch, indices in zip(batches, chosen, strict=True):
        np.testing.assert_array_equal(batch["image"], dataset.images(indices))
        np.testing.assert_array_equal(batch["label"], dataset.labels(indices))
    np.testing.assert_array_equal(torch.cat([b["flip"] for b in batches]), flips(5, 0, 24))
    assert batches[0]["image"].dtype == torch.uint8
    assert batches[0]["label"].shape == (3, 2)


def test_without_xflip_nothing_is_mirrored(dataset) -> None:
    assert not torch.cat([b["flip"] for b in _take(_data(dataset, xflip=False), 20)]).any()


def test_the_index_is_the_place_and_mirror_images_come_after_the_others(dataset) -> None:
    batch = _data(dataset, batch_size=24).batch(4)
    place = order(5, 7, 4, 24)
    assert batch["flip"].any()
    np.testing.assert_array_equal(batch["index"], np.where(batch["flip"], place + 7, place))
    np.testing.assert_array_equal(batch["image"], dataset.images(INDICES[batch["index"] % 7]))
    plain = _data(dataset, xflip=False).batch(0)["index"]
    np.testing.assert_array_equal(plain, order(5, 7, 0, 3))


def test_a_batch_size_that_grows_with_the_clock_goes_on_where_the_last_batch_ended(dataset) -> None:
    sizes = _data(dataset, batch_size=lambda nimg: 2 if nimg < 6 else 5)
    batches = _take(sizes, 5)
    assert [len(b["index"]) for b in batches] == [2, 2, 2, 5, 5]
    flat = _data(dataset, batch_size=16).batch(0)
    for key in flat:
        np.testing.assert_array_equal(torch.cat([b[key] for b in batches]), flat[key])


def test_two_devices_read_what_one_would(dataset) -> None:
    whole = _take(_data(dataset, batch_size=6), 4)
    parts = []
    for rank in range(2):
        data, model = _data(dataset), SimpleNamespace(nimg=torch.tensor(0))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, lightning_module=model)
        parts.append(_take(data, 4))
    for batch, first, second in zip(whole, *parts, strict=True):
        for key, value in batch.items():
            torch.testing.assert_close(value, torch.cat([first[key], second[key]]))


def test_no_images_and_wrong_batch_size_are_errors(dataset) -> None:
    with pytest.raises(DataError, match="no image"):
        ImageData(dataset, np.array([], int), batch_size=1, seed=0, xflip=False)
    with pytest.raises(DataError, match="batch_size=0"):
        _data(dataset, batch_size=0)


def test_to_float_is_the_formula_in_numpy() -> None:
    image = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).view(2, 3, 2, 4) * 5
    result = to_float(image, torch.tensor([False, True]))
    expected = image.numpy().astype(np.float64) / 127.5 - 1
    expected[1] = expected[1, :, :, ::-1]
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)
    assert result.dtype == torch.float32
    assert to_float(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist() == [[[[-1, 1]]]]


class _Recorder(pl.LightningModule):
    """Keeps the images that it was given, and counts them."""

    def __init__(self, nimg: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.nimg, self.seen = nimg, []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: dict, index: int) -> None:
        self.seen.append(batch["image"])
        self.nimg += len(batch["image"])


def _fit(data: ImageData, nimg: int, steps: int) -> torch.Tensor:
    model = _Recorder(nimg)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return torch.cat(model.seen)


def test_fit_without_warnings_and_a_later_start_goes_on(dataset) -> None:
    """pytest turns every warning of Lightning into an error."""
    whole = _fit(_data(dataset), 0, 6)
    torch.testing.assert_close(_fit(_data(dataset), 9, 3), whole[9:])
    batches = _take(_data(dataset), 6)
    expected = torch.cat([to_float(b["image"], b["flip"]) for b in batches])
    torch.testing.assert_close(whole, expected)
