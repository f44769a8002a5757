"""A protocol's name reads back as itself; everything else is refused with the grammar."""

import pytest

from stylegan_tl.metrics.protocol import Protocol


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fid1k_train_small", Protocol("fid", 1000, "train", "small")),
        ("fid5k_train_inception", Protocol("fid", 5000, "train", "inception")),
        ("kid1k_heldout_small", Protocol("kid", 1000, "heldout", "small")),
        ("fid500_train_small", Protocol("fid", 500, "train", "small")),
        ("fid1500_train_small", Protocol("fid", 1500, "train", "small")),
        ("swd1k_train", Protocol("swd", 1000, "train", None)),
        ("swd64_heldout", Protocol("swd", 64, "heldout", None)),
    ],
)
def test_names_round_trip(name, wanted):
    assert Protocol.parse(name) == wanted
    assert str(wanted) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fid", "not of this form"),
        ("fid1k", "not of this form"),
        ("fid1k_train", "no extractor"),
        ("fid1k_test_small", "split 'test'"),
        ("fid1k_train_vgg", "extractor 'vgg'"),
        ("swd1k_train_small", "swd takes none"),
        ("fid1000_train_small", "write fid1k_train_small"),
        ("fid01k_train_small", "not of this form"),
        ("fid2_train_small", "fewer than 3"),
        ("is1k_train_small", "not of this form"),
        ("fid1k_train_small\n", "not of this form"),
    ],
)
def test_unknown_names_list_the_grammar(name, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Protocol.parse(name)
    assert "<fakes>" in str(error.value)
