"""Package metadata. `conf/` is installed as `stylegan_tl.conf`, so a wheel finds it."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
LIVE = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]

setup(
    name="stylegan_tl",
    version="0.1.0",
    description="Which datasets work well together when a GAN is transferred, and what to freeze",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["stylegan_tl", "stylegan_tl.*", "cuda_ops", "cuda_ops.*"]),
        "stylegan_tl.conf",
    ],
    package_dir={"stylegan_tl.conf": "conf"},
    package_data={
        "stylegan_tl": ["**/*.safetensors", "**/*.json", "**/*.html", "**/*.css", "**/*.js"],
        "stylegan_tl.conf": ["*.yaml", "**/*.yaml"],
        "cuda_ops": ["csrc/*"],
    },
    install_requires=[
        "torch>=2.6",
        "pytorch-lightning>=2.6.6,<3",
        "torchmetrics>=1.8,<2",
        "hydra-core>=1.3.8,<1.5",
        "omegaconf>=2.3,<2.5",
        "wandb>=0.26",
        "ninja",
        "numpy>=1.26",
        "pillow>=10.3",
        "filelock>=3.12",
        "safetensors>=0.4.5",
        "matplotlib>=3.8",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "ruff>=0.6",
            "scipy>=1.11",
            "setuptools>=68",
            "hypothesis>=6.100",
            "transformers>=5,<6",
            "tensorboard>=2.16",
            "wandb-workspaces>=0.4.13",
            *LIVE,
        ],
        "live": LIVE,  # generate page=… live=true: the exporter, and what checks its graph
        "features": ["transformers>=5,<6"],  # DINOv2 and CLIP, from a folder on disk
        # A whole nvcc without a system toolkit: one version of the five, as cuda_ops/toolkit.py
        # finds them. They need a driver of CUDA 13; for an older one install its own toolkit.
        "cuda": [
            f"{package}>=13,<14 ; sys_platform == 'linux'"
            for package in (
                "nvidia-cuda-nvcc",
                "nvidia-cuda-runtime",
                "nvidia-cuda-crt",
                "nvidia-nvvm",
                "nvidia-cuda-cccl",
            )
        ],
        "lmdb": ["lmdb>=1.4"],
        "video": ["imageio-ffmpeg>=0.5"],  # latent interpolate mp4=true, where ffmpeg is not there
        "tensorboard": ["tensorboard>=2.16"],
        "report": ["wandb-workspaces>=0.4.13"],
        # Other launchers of a study than the local one: hydra/launcher=submitit_slurm or ray.
        "slurm": ["hydra-submitit-launcher>=1.2,<2"],
        "ray": ["hydra-ray-launcher>=1.2,<2"],
    },
)
