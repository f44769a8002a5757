"""MP4 by ffmpeg, where there is one: that of the package imageio-ffmpeg, or of the system."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

__all__ = ["find_encoder", "write_mp4"]


def find_encoder() -> str:
    """The path of ffmpeg; ValueError says how to get one."""
    if find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    found = shutil.which("ffmpeg")
    if found is None:
        raise ValueError(
            "mp4=true needs ffmpeg: pip install imageio-ffmpeg, or install ffmpeg so that it is on "
            "the PATH; the WebP is written without it (mp4=false)"
        )
    return found


def write_mp4(path: Path, frames: Sequence[Image.Image], fps: int, encoder: str) -> Path:
    """Write pictures of one size as H.264; ValueError with what ffmpeg said if it fails.

    A side of odd length loses its last line: the format stores colour at half the resolution.
    """
    width, height = (side // 2 * 2 for side in frames[0].size)
    partial = path.with_name(f".{path.stem}.part.mp4")
    command = [encoder, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-c:v", "libx264"]
    command += ["-pix_fmt", "yuv420p", "-crf", "17", "-movflags", "+faststart", str(partial)]
    pixels = b"".join(frame.crop((0, 0, width, height)).tobytes() for frame in frames)
    done = subprocess.run(command, input=pixels, capture_output=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ValueError(f"{path}: ffmpeg ({encoder}) failed: {said[-1]}")
    os.replace(partial, path)
    return path
