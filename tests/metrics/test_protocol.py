"""A protocol's name reads back as itself; everything else is refused with the grammar."""

import pytest

from stylegan_tl.metrics.protocol import KINDS, PRESETS, Protocol, expand


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("fid1k_train_small", Protocol("fid", 1000, "train", "small")),
        ("fid5k_train_inception", Protocol("fid", 5000, "train", "inception")),
        ("kid1k_heldout_small", Protocol("kid", 1000, "heldout", "small")),
        ("fid500_source_small", Protocol("fid", 500, "source", "small")),
        ("fidinf1500_train_small", Protocol("fidinf", 1500, "train", "small")),
        ("swd1k_train", Protocol("swd", 1000, "train")),
        ("swd64_heldout", Protocol("swd", 64, "heldout")),
        ("coverage5k_full_dinov2", Protocol("coverage", 5000, "full", "dinov2")),
        ("is5k_inception", Protocol("is", 5000, extractor="inception")),
        ("ppl1k_wfull_lpips", Protocol("ppl", 1000, extractor="lpips", space="wfull")),
        ("eqt50k_int", Protocol("eqt", 50_000, shift="int")),  # NVIDIA's names of the same
        ("eqt50k_frac", Protocol("eqt", 50_000, shift="frac")),
        ("eqr50k", Protocol("eqr", 50_000)),
        ("intra1k_train_small", Protocol("intra", 1000, "train", "small")),
        ("nearer1k_clip", Protocol("nearer", 1000, extractor="clip")),
        ("kid50k_full_inception", Protocol("kid", 50_000, "full", "inception")),
    ],
)
def test_names_round_trip(name, wanted):
    assert Protocol.parse(name) == wanted
    assert str(wanted) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fid", "not of this form"),
        ("fid1k", "fid is followed by <split>_<extractor>"),
        ("eqr1k_int", "eqr is followed by nothing but its count"),
        ("eqt1k_half", "shift 'half' is not one of int, frac"),
        ("fid1k_train", "fid is followed by <split>_<extractor>"),
        ("fid1k_test_small", "split 'test'"),
        ("fid1k_train_vgg", "extractor 'vgg'"),
        ("fid1k_train_lpips", "extractor 'lpips'"),
        ("ppl1k_wend_inception", "extractor 'inception' is not one of small, lpips"),
        ("ppl1k_w_small", "space 'w'"),
        ("is1k_small", "extractor 'small'"),
        ("swd1k_train_small", "swd is followed by <split>"),
        ("fid1000_train_small", "write fid1k_train_small"),
        ("fid01k_train_small", "not of this form"),
        ("fid2_train_small", "fewer than 3"),
        ("fid1k_train_small\n", "not of this form"),
        ("fid50k_full_inception", "write fid50k_full,"),
        ("is50k_inception", "write is50k,"),
        ("recall50k_full_vgg16", "write pr50k3_full_recall,"),
        ("ppl50k_wend_lpips", "write ppl2_wend,"),
        ("pr50k3_full", "not of this form"),  # two values: only `expand` reads it
    ],
)
def test_unknown_names_list_the_grammar(name, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Protocol.parse(name)
    assert "<extractor>" in str(error.value)


def test_families_and_presets_stand_for_their_values():
    assert [str(p) for p in expand(["pr1k_train_small", "recall1k_train_small"])] == [
        "precision1k_train_small",
        "recall1k_train_small",
    ]
    assert [str(p) for p in expand(["dc1k_heldout_small"])] == [
        "density1k_heldout_small",
        "coverage1k_heldout_small",
    ]
    assert [str(p) for p in expand(PRESETS)] == [
        "fid50k_full",
        "kid50k_full",
        "pr50k3_full_precision",
        "pr50k3_full_recall",
        "is50k",
        "ppl2_wend",
    ]
    for protocol in expand(PRESETS):
        assert Protocol.parse(str(protocol)) == protocol
        assert protocol.num_fakes == 50_000


def test_every_kind_says_what_it_compares_with():
    for name, kind in KINDS.items():
        assert kind.better in ("min", "max")
        assert kind.splits or "split" in kind.parts or name in ("is", "ppl", "eqt", "eqr", "paired")
