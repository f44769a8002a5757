"""Values of different protocols do not stand in one comparison, and the refusal says why."""

import subprocess
import sys

import pytest

from stylegan_tl.study.comparable import FIELDS, ProtocolMismatch, check_record, comparable

ROW = {
    "metric": "fid1k_train_small",
    "of": "model",
    "num_fakes": 1000,
    "num_reals": 9,
    "split": "train",
    "extractor": "small",
    "extractor_digest": "aa",
    "precision": "fp32",
    "resize": "x",
    "estimator": "plain",
    "reference_hash": "00",
    "value": 3.0,
}


def test_the_measurement_may_differ_and_the_protocol_may_not():
    comparable(ROW, {**ROW, "value": 4.0, "seconds": 2})
    for field in FIELDS:
        with pytest.raises(ProtocolMismatch, match=f"{field}: .* ≠ 'other'"):
            comparable(ROW, {**ROW, field: "other"})


def test_every_difference_is_spelt_out():
    other = {**ROW, "num_fakes": 5000, "extractor_digest": None}
    with pytest.raises(ProtocolMismatch) as error:
        comparable(ROW, other)
    assert str(error.value).endswith("num_fakes: 1000 ≠ 5000; extractor_digest: 'aa' ≠ None")


def test_other_reals_pass_only_where_allowed():
    other = {**ROW, "num_reals": 10, "reference_hash": "11"}
    with pytest.raises(ProtocolMismatch, match="num_reals: 9 ≠ 10; reference_hash: '00' ≠ '11'"):
        comparable(ROW, other)
    comparable(ROW, other, reference=False)
    with pytest.raises(ProtocolMismatch, match="of: 'model' ≠ 'images'"):
        comparable(ROW, {**other, "of": "images"}, reference=False)


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_not_recorded_is_not_alike(field):
    lacking = {k: v for k, v in ROW.items() if k != field}
    with pytest.raises(ProtocolMismatch, match=rf"{field}: .* ≠ \(absent\)"):
        comparable(ROW, lacking)
    with pytest.raises(ProtocolMismatch, match=f"both lack {field}"):
        comparable(lacking, lacking)
    with pytest.raises(ValueError, match=f"lacks {field}: "):
        check_record(lacking)
    check_record({**ROW, field: None})


def test_it_needs_no_torch():
    code = "import sys, stylegan_tl.study.comparable; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
