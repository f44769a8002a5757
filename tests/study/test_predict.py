"""Predictors that are right, reversed, or noise by construction get the scores that they must."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from made import write_trial as write
from scipy import stats

from stylegan_tl.study.predict import CHOSEN, Outcomes, evaluate, predict, predictions
from stylegan_tl.study.predictors import Predictor, read_predictors

SOURCES = "abcde"
TARGETS = "KLMN"
PAIRS = [(s, t) for s in SOURCES for t in TARGETS]


@pytest.fixture
def generator():
    return np.random.default_rng(5)


def _outcomes(values, spread=0.0, better="min"):
    runs = {pair: [value - spread, value, value + spread] for pair, value in values.items()}
    return Outcomes("none", better, runs)


def _random(generator):
    return {pair: float(v) for pair, v in zip(PAIRS, generator.normal(size=20), strict=True)}


def test_scores_are_scipys_correlations_averaged_over_targets(generator):
    x, y = _random(generator), _random(generator)
    (own, *_) = evaluate([Predictor("p", "min", x)], _outcomes(y), generator=generator)
    columns = [([x[s, t] for s in SOURCES], [y[s, t] for s in SOURCES]) for t in TARGETS]
    assert own.spearman == pytest.approx(np.mean([stats.spearmanr(*c)[0] for c in columns]))
    assert own.kendall == pytest.approx(np.mean([stats.kendalltau(*c)[0] for c in columns]))
    regrets = [b[int(np.argmin(a))] - min(b) for a, b in columns]
    assert own.regret == pytest.approx(np.mean(regrets))
    assert own.chance == pytest.approx(np.mean([np.mean(b) - min(b) for _, b in columns]))
    assert (own.targets, own.pairs) == (4, 20)


@pytest.mark.parametrize("better", ["min", "max"])
@pytest.mark.parametrize("claimed", ["min", "max"])
def test_a_perfect_predictor_and_its_reverse(generator, better, claimed):
    y = _random(generator)
    right = y if claimed == better else {pair: -v for pair, v in y.items()}
    wrong = {pair: -v for pair, v in right.items()}
    predictors = [Predictor("wrong", claimed, wrong), Predictor("right", claimed, right)]
    found = evaluate(predictors, _outcomes(y, better=better), generator=generator)
    scored = {p.predictor: p for p in found}
    assert [p.predictor for p in found] == ["right", "wrong", CHOSEN]
    assert (scored["right"].spearman, scored["right"].regret) == (1, 0)
    assert scored["wrong"].spearman == -1
    spread = np.mean([np.ptp([y[s, t] for s in SOURCES]) for t in TARGETS])
    assert scored["wrong"].regret == pytest.approx(spread)
    assert (scored["wrong"].spearman_learned, scored["wrong"].regret_learned) == (1, 0)
    assert (scored[CHOSEN].spearman, scored[CHOSEN].regret) == (1, 0)


def test_the_left_out_target_teaches_nothing(generator):
    """Right for three targets and reversed for the fourth: learned, it is wrong there."""
    y = _random(generator)
    x = {(s, t): -v if t == "N" else v for (s, t), v in y.items()}
    (own,) = evaluate([Predictor("p", "min", x)], _outcomes(y), generator=generator)
    assert own.spearman == own.spearman_learned == pytest.approx((3 - 1) / 4)


def test_of_noise_the_interval_over_targets_holds_zero():
    held = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        x, y = _random(generator), _random(generator)
        found = evaluate([Predictor("p", "min", x)], _outcomes(y), generator=generator, rounds=300)
        low, high = found[0].spearman_targets
        held += low <= 0 <= high
    assert 25 <= held <= 40  # 95 % would be 38; four targets cover less


def test_noise_between_seeds_widens_the_interval_over_seeds(generator):
    y = {pair: float(i % 5) for i, pair in enumerate(PAIRS)}
    widths = []
    for spread in (0.0, 1.2, 6.0):
        found = evaluate(
            [Predictor("p", "min", y)], _outcomes(y, spread), generator=generator, rounds=500
        )
        low, high = found[0].spearman_seeds
        widths.append(high - low)
    assert widths[0] == 0 < widths[1] < widths[2]


def test_what_does_not_differ_between_sources_says_nothing(generator):
    constant = {(s, t): float(ord(t)) for s, t in PAIRS}
    y = _outcomes(_random(generator))
    assert evaluate([Predictor("p", "min", constant)], y, generator=generator) == []


def test_a_property_of_the_target_alone_chooses_no_source(tmp_path, generator):
    y = _random(generator)
    near = dict(name="K", split="train")  # differs a little: of as many images as the source has
    rows = [_row(s, "K", 1 + 0.01 * i, **near) for i, s in enumerate(SOURCES)]
    rows += [_row(s, "K", i, **near, source_model="aa", kind="dauc") for i, s in enumerate(SOURCES)]
    _lines(tmp_path / "d.jsonl", rows)
    known = read_predictors(tmp_path / "d.jsonl")
    assert [p.of for p in known] == ["target", "model"]
    found = evaluate(known, _outcomes(y), generator=generator)
    assert [p.predictor for p in found] == ["dauc target train small"]


def test_missing_pairs_and_single_targets(generator):
    y = {("a", "K"): 1.0, ("b", "K"): 2.0, ("a", "L"): 1.0, ("c", "K"): 3.0}
    x = {("a", "K"): 1.0, ("b", "K"): 2.0, ("a", "L"): 1.0, ("d", "K"): 3.0}
    (own,) = evaluate([Predictor("p", "min", x)], _outcomes(y), generator=generator)
    assert (own.targets, own.pairs, own.spearman) == (1, 2, 1)
    assert np.isnan([own.spearman_learned, *own.spearman_targets]).all()


def _lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"half')


def _row(source, target, value, **more):
    own = {"source": source, "target": target, "kind": "fid", "value": value, "better": "min"}
    own |= {"of": "images", "name": source, "split": "train", "extractor": "small"}
    return {**own, "num_fakes": 1000, "resolution": 64, "extractor_digest": "aa", **more}


def test_records_are_named_by_what_was_measured(tmp_path):
    rows = [_row("a", "K", 1.0), _row("a", "K", 3.0, seed=1), _row("b", "K", 2.0, num_fakes=900)]
    rows += [_row("a", "K", 5.0, of="model", name="x.ckpt"), _row("a", "K", 6.0, name="K")]
    rows += [{"source": "a", "target": "K", "kind": "known", "value": 0.5}, _row("b", "K", None)]
    _lines(tmp_path / "d.jsonl", rows)
    found = {p.name: p for p in read_predictors(tmp_path / "d.jsonl")}
    assert sorted(found) == [
        "fid model train small",
        "fid source train small",
        "fid target train small",
        "known",
    ]
    own = found["fid source train small"]
    assert own.values == {("a", "K"): 2.0, ("b", "K"): 2.0}  # seeds averaged
    assert own.note == "of 900 to 1000 images"


def test_features_and_resolutions_are_not_mixed(tmp_path):
    path = tmp_path / "d.jsonl"
    _lines(path, [_row("a", "K", 1.0), _row("b", "K", 1.0, extractor_digest="bb")])
    with pytest.raises(ValueError, match="extractor_digest: aa ≠ bb"):
        read_predictors(path)
    _lines(path, [_row("a", "K", 1.0), _row("b", "K", 1.0, resolution=128)])
    with pytest.raises(ValueError, match=r"holds resolutions \[64, 128\]: choose one"):
        read_predictors(path)
    assert list(read_predictors(path, 128)[0].values) == [("b", "K")]
    _lines(path, [])
    with pytest.raises(ValueError, match="no line with source, target, kind and value"):
        read_predictors(path)
    with pytest.raises(ValueError, match="no such file"):
        read_predictors(tmp_path / "none.jsonl")


def test_the_whole_way_from_trials_to_files(tmp_path):
    root, rows = tmp_path / "pairs", []
    for i, source in enumerate(SOURCES):
        for target in ("K", "L", "M"):
            rows.append(_row(source, target, float(i)))
            for seed in range(3):
                at = {0.0: 9.0 - i, 1.0: i + 0.1 * seed}
                write(root, at, source=source, target=target, seed=seed)
    write(root, {1.0: 9.0}, source="scratch", target="K")
    write(root, state="failed", source="a", target="K", seed=9)
    _lines(tmp_path / "d.jsonl", rows)
    text = predict(root, tmp_path / "d.jsonl", metric="fid1k_train_small")
    assert "## none, dcgan, none" in text
    assert "| fid source train small | 3 | 15 | +1.00 [+1.00, +1.00] [+1.00, +1.00] |" in text
    assert "| fid1k_train_small at 0 kimg | 3 | 15 | -1.00" in text
    assert f"| {CHOSEN} | 3 | 15 | +1.00" in text
    with open(root / "predict.csv", newline="") as file:
        assert [r["spearman"] for r in csv.DictReader(file)] == ["1.0", "-1.0", "1.0"]
    assert predict(root, tmp_path / "d.jsonl", metric="fid1k_train_small") == text


def test_strategies_of_one_model_are_pooled_within_each_target(tmp_path, generator):
    x = _random(generator)
    outcomes = {"none": _random(generator), "freeze_d": _random(generator)}
    for freeze, y in outcomes.items():
        for (source, target), value in y.items():
            for seed in range(2):
                at = {1.0: value + 0.5 * seed}
                write(
                    tmp_path / "pairs", at, source=source, target=target, freeze=freeze, seed=seed
                )
    _lines(tmp_path / "d.jsonl", [_row(s, t, v) for (s, t), v in x.items()])
    found = predictions(tmp_path / "pairs", tmp_path / "d.jsonl", metric="fid1k_train_small")
    pooled = found[0]
    assert pooled.strategy == "all 2 strategies, dcgan, none"
    columns = [[(x[s, t], y[s, t]) for s in SOURCES] for y in outcomes.values() for t in TARGETS]
    expected = [stats.spearmanr(column)[0] for column in columns]
    assert pooled.spearman == pytest.approx(np.mean(expected))
    single = {p.strategy: p for p in found}
    parts = [single[f"{freeze}, dcgan, none"] for freeze in outcomes]
    assert pooled.regret == pytest.approx(np.mean([p.regret for p in parts]))
    assert pooled.chance == pytest.approx(np.mean([p.chance for p in parts]))
    assert (pooled.targets, pooled.pairs) == (4, 20)
    low, high = pooled.spearman_targets
    assert low < pooled.spearman < high


@pytest.mark.parametrize(
    ("sources", "head"),
    [
        ({"K": "ab", "L": "cd"}, "Sources per target: 2. No target has more than two sources"),
        ({"K": "ab", "L": "abc"}, "Sources per target: 2 to 3."),
        ({"K": "abc", "L": "cde"}, "Sources per target: 3."),
    ],
)
def test_the_head_says_how_few_sources_a_target_has(tmp_path, sources, head):
    pairs = [(s, t) for t, own in sources.items() for s in own]
    for source, target in pairs:
        write(tmp_path / "pairs", {1.0: float(ord(source))}, source=source, target=target)
    _lines(tmp_path / "d.jsonl", [_row(s, t, float(ord(s))) for s, t in pairs])
    text = predict(tmp_path / "pairs", tmp_path / "d.jsonl", metric="fid1k_train_small")
    line = next(line for line in text.splitlines() if line.startswith("Sources per target"))
    assert line.startswith(head)
    assert ("hint only" in line) == (max(map(len, sources.values())) == 2)
    with open(tmp_path / "pairs" / "predict.csv", newline="") as file:
        row = next(csv.DictReader(file))
    counts = sorted(map(len, sources.values()))
    assert [row["sources_low"], row["sources_high"]] == [str(counts[0]), str(counts[-1])]


def test_nothing_in_common_is_said(tmp_path):
    write(tmp_path / "pairs", {1.0: 9.0})
    _lines(tmp_path / "d.jsonl", [_row("a", "K", 1.0)])
    with pytest.raises(ValueError, match="share no target with two sources"):
        predict(tmp_path / "pairs", tmp_path / "d.jsonl", metric="fid1k_train_small")
    with pytest.raises(ValueError, match="measure='last'"):
        predict(tmp_path / "pairs", tmp_path / "d.jsonl", metric="x", measure="last")
