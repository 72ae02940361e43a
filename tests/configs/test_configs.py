"""Every config of the project builds, trains and evaluates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS

from mmseg_otseg.datasets.shapes import ShapesDataset
from mmseg_otseg.engine import ZeroShotRunner, resolve
from tests.helpers.shapes_run import SHAPES
from tests.helpers.small_configs import CONFIGS, small, train


def checkpoint(cfg: Config, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model, also written as the checkpoint ``trained.pth``."""
    state = MODELS.build(cfg.model).state_dict()
    torch.save({"state_dict": state}, folder / "trained.pth")
    return state


# A config of each method, dataset and setting; the others run on purpose, and all are built and
# resolved by other tests.
QUICK = {
    "otseg/voc_512.py",
    "otseg/context_480_transductive.py",
    "ablations/otseg_voc_512_softmax.py",
    "zegot/cocostuff_512.py",
    "zegclip/voc_512_supervised.py",
    "training_free/voc_512.py",
    "cross_dataset/cocostuff_to_ade20k_512.py",
}


@pytest.mark.parametrize(
    "config",
    [
        config if config in QUICK else pytest.param(config, marks=pytest.mark.slow)
        for config in CONFIGS
        if config != "training_free/names.py"  # tests/datasets/test_open_vocabulary.py
    ],
)
def test_two_iterations_and_an_evaluation(config: str, data_folder: Path, tmp_path: Path) -> None:
    cfg = small(config, data_folder, tmp_path)
    cfg.experiment_name = config.replace("/", "_").removesuffix(".py")
    if config.startswith("cross_dataset"):
        method = "zegclip" if "zegclip" in config else "otseg"
        trained = "context_480" if "context_to" in config else "cocostuff_512"
        state = checkpoint(small(f"{method}/{trained}.py", data_folder), tmp_path)
        cfg.load_from = str(tmp_path / "trained.pth")
        runner = ZeroShotRunner.from_cfg(cfg)
        metrics = runner.test()
        assert "mIoU" in metrics and "hIoU" not in metrics
        for name, value in runner.model.named_parameters():
            assert not value.requires_grad or torch.equal(value, state[name]), name
        return
    if config.startswith("training_free"):
        assert "mIoU" in ZeroShotRunner.from_cfg(cfg).test()
        return
    if config.endswith("from_checkpoint.py"):
        checkpoint(cfg, tmp_path)
        cfg.load_from = str(tmp_path / "trained.pth")
    assert train(cfg).iter == 2


@pytest.mark.parametrize("data", ["voc_512", "context_480", "cocostuff_512"])
def test_batches_of_the_data(data: str, data_folder: Path) -> None:
    """Training hides the unseen classes, testing does not; mmseg's tool sets the augmentation."""
    cfg = resolve(small(f"otseg/{data}.py", data_folder))
    training, testing = (
        Runner.build_dataloader(cfg[f"{part}_dataloader"], seed=0) for part in ("train", "test")
    )
    split = training.dataset.split
    assert len(training.dataset) == (4 if "voc" in data else 2)
    batch = next(iter(training))
    side = cfg.crop_size[0]
    assert all(max(image.shape[1:]) <= side for image in batch["inputs"])
    labels = torch.cat([s.gt_sem_seg.data.flatten() for s in batch["data_samples"]])
    assert len(values := set(labels.tolist())) > 1 and values <= {*split.seen, 255}
    samples = [sample for batch in testing for sample in batch["data_samples"]]
    assert all(sample.gt_sem_seg.data.shape == (1, 64, 80) for sample in samples)
    assert torch.isin(
        torch.cat([s.gt_sem_seg.data.flatten() for s in samples]), torch.tensor(split.unseen)
    ).any()
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    views = next(iter(Runner.build_dataloader(cfg.test_dataloader, seed=0)))["inputs"]
    assert len(views) == 2 * len(cfg.img_ratios)
    assert torch.equal(views[0][0].flip(-1), views[1][0])


def test_the_first_view_of_a_scene_is_that_of_its_labels() -> None:
    cfg = Config.fromfile(SHAPES / "otseg.py")
    data = ShapesDataset(length=1, pipeline=cfg.test_pipeline)
    views = ShapesDataset(length=1, pipeline=cfg.tta_pipeline)[0]
    assert len(views["inputs"]) == 2
    assert torch.equal(views["inputs"][0], data[0]["inputs"])
    assert torch.equal(views["inputs"][1], data[0]["inputs"].flip(-1))
    first, plain = views["data_samples"][0], data[0]["data_samples"]
    assert torch.equal(first.gt_sem_seg.data, plain.gt_sem_seg.data)
