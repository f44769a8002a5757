"""Write procedural paintings as a folder of genres, one sub-folder each: a conditional dataset.

python experiments/origins/genres.py OUT art/landscape art/abstract art/portrait [--count 400]
"""

import argparse
from pathlib import Path

from PIL import Image

from stylegan_tl.data.procedural import render


def main() -> None:
    """Draw `--count` pictures of each domain, those of the same numbers for every genre."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("domains", nargs="+")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--resolution", type=int, default=64)
    given = parser.parse_args()
    for domain in given.domains:
        folder = given.out / domain.split("/")[-1]
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(given.count):
            picture = render(domain, index, given.resolution)
            Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{index:05d}.png")
        print(f"{folder}: {given.count} pictures")


if __name__ == "__main__":
    main()
