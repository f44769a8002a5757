"""Hydra configuration of `stylegan_tl`, installed as `stylegan_tl.conf`."""
