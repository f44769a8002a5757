"""`python -m stylegan_tl.freeze freeze=… model=…`: what a strategy freezes, without training.

Takes the arguments of `stylegan_tl.train`. Prints every tensor of G and D with its groups, its
resolution, its parameters and whether it stays; then the shares, and what papers call the same.
`source.checkpoint=` takes the networks from that file, anything else builds those of `model=`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from stylegan_tl.freeze.base import Freeze
    from stylegan_tl.models.adversarial import AdversarialModel

__all__ = ["main", "table"]


def main() -> None:
    """Compose the configuration of `train` and print the table."""
    from stylegan_tl.command import run_command

    run_command("freeze", _run)


def table(model: AdversarialModel, freeze: Freeze) -> list[str]:
    """The lines to print, for a model that `freeze` was not yet applied to."""
    from stylegan_tl.freeze.base import additions
    from stylegan_tl.freeze.groups import parts_of

    record = freeze.apply(model)
    parts = parts_of(model)
    frozen = {p.name for p in freeze.select(model)}
    width = max(len(p.name) for p in parts)
    lines = [f"{'tensor':{width}}  {'groups':20}  {'px':>4}  {'parameters':>12}  state"]
    for p in parts:
        groups = " ".join(sorted(p.groups - {"block"}))
        size = f"{p.count:12,}" if p.is_parameter else f"{'(buffer)':>12}"
        state = "frozen" if p.name in frozen else "trains" if p.is_parameter else "follows"
        lines.append(f"{p.name:{width}}  {groups:20}  {p.resolution or '':>4}  {size}  {state}")
    return [*lines, "", *_shares(record), *additions(record), *_aliases(model)]


def _shares(record: dict[str, Any]) -> list[str]:
    return [
        f"{net}: {record[net]['frozen']:,} of {record[net]['parameters']:,} parameters frozen, "
        f"{record[net]['share']:.1%}; starts from {record['init'][net]}"
        for net in "GD"
    ]


def _aliases(model: AdversarialModel) -> list[str]:
    """What papers call the k image-side blocks of D, and their share of it.

    NVIDIA counts layers, four in the first block and three in each further; FreezeD counts the
    blocks that still train, the 4 x 4 one with them.
    """
    from stylegan_tl.freeze.groups import parts_of

    parts = [p for p in parts_of(model) if p.network == "D" and p.is_parameter]
    total = sum(p.count for p in parts)
    at = sorted({p.resolution for p in parts if p.resolution}, reverse=True)
    lines = ["", "freeze_d: k blocks  NVIDIA --freezed  FreezeD feature_loc  frozen share of D"]
    for k in range(1, len(at) + 1):
        share = sum(p.count for p in parts if p.resolution in at[:k]) / total
        lines.append(f"{k:18}  {3 * k + 1:16}  {len(at) + 1 - k:19}  {share:17.1%}")
    return lines


def _run(cfg: DictConfig) -> None:
    from stylegan_tl.config import plain, validate
    from stylegan_tl.errors import user_errors

    with user_errors():
        config = plain(cfg)
        validate(config)
        from stylegan_tl.assembly import blank_model, named_source
        from stylegan_tl.freeze.base import freeze_of

        freeze = freeze_of(config["freeze"])
        print("\n".join(table(blank_model(config, freeze.strategy, named_source(config)), freeze)))


if __name__ == "__main__":
    main()
