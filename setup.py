import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.findall(r'"(.+)"', (ROOT / "mmseg_otseg" / "version.py").read_text())[0]

# Two stacks bring the same import names (mmcv, mmengine, mmseg). They are extras, so that pip never
# puts one over the other. What reads files has an upper bound: another release may open a way in.
ONEDL = [
    "onedl-mmengine>=0.10.12,<0.11",
    "onedl-mmcv>=2.3.6,<3",
    "onedl-mmsegmentation>=1.4.2,<2",
    "torch>=2.10",  # below, torch.load(weights_only=True) has CVE-2026-24747
]
OPENMMLAB = ["mmengine>=0.10.7,<0.11", "mmcv>=2.0.0rc4,<2.2.0", "mmsegmentation>=1.2.2,<2"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1,<2"]
DEMO = ["gradio>=6,<7", "fastapi"]
COCO = ["pycocotools"]
EXPORT = ["onnx", "onnxscript", "onnxruntime>=1.20", "tokenizers", "ftfy"]
TEST = ["pytest", "pytest-xdist", "POT", "ruff", "mypy", "tensorboard", "nbclient", "ipykernel"]
TEST += ["selenium", *EXPORT, *COCO]

setup(
    name="mmseg_otseg",
    version=VERSION,
    description="Zero-shot semantic segmentation with OTSeg, ZegOT and ZegCLIP, for mmseg",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # The configs and scripts come along where mim looks for them.
    packages=[
        *find_packages(include=["mmseg_otseg*"]),
        "mmseg_otseg.configs",
        "mmseg_otseg.tools",
        "mmseg_otseg_cli",
    ],
    package_dir={
        "mmseg_otseg.configs": "configs",
        "mmseg_otseg.tools": "tools",
        "mmseg_otseg_cli": "tools/mmseg_otseg_cli",
    },
    entry_points={"console_scripts": ["mmseg-otseg = mmseg_otseg_cli.__main__:main"]},
    package_data={
        "mmseg_otseg": ["model-index.yml", "py.typed", "imaging/class_names/*/*.txt"],
        "mmseg_otseg.tools": ["dist*.sh"],
        "mmseg_otseg.configs": ["**/*.py", "**/*.yaml", "**/*.md", "**/*.safetensors"],
    },
    install_requires=[
        "torch>=2.6,<3",  # the first whose torch.load, where others call it, executes nothing
        "torchvision",
        "open_clip_torch>=3.0,<4",
        "timm",
        "numpy<3",
        "pillow>=10.1",  # the first with a font of any size
        "safetensors<1",
        "huggingface_hub",
        "matplotlib",
        "prettytable",
        "pyyaml",
        "rich",
        "scipy",
        "tqdm",
    ],
    extras_require={
        "onedl": ONEDL,
        "openmmlab": OPENMMLAB,
        "coco": COCO,
        "export": EXPORT,
        "demo": DEMO,
        "docs": DOCS,
        "test": TEST,
    },
)
