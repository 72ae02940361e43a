"""Pre-training of the tiny CLIP: its loss, its checkpoints, what it writes."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmseg_otseg.datasets.shapes import SHAPES_CLASSES
from mmseg_otseg.models.clip import load_clip
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def tool():
    from tools.shapes import pretrain_clip

    return pretrain_clip


@pytest.fixture
def config():
    config = Config.fromfile(ROOT / "configs/shapes/clip/shapes_clip.py")
    config.merge_from_dict(
        {
            "clip.model.vision_cfg": dict(
                image_size=64, patch_size=16, width=32, layers=1, head_width=16
            ),
            "clip.model.embed_dim": 16,
            "clip.model.text_cfg.width": 16,
            "clip.model.text_cfg.layers": 1,
            "pretrain": dict(steps=6, batch_size=8, warmup=2, single_steps=2, noun_weight=1.0),
        }
    )
    return config


def run(tool, config, folder, **options):
    options = dict(save_interval=100, eval_interval=0, **options)
    return tool.train(config, folder, "cpu", "fp32", 0, **options)


@pytest.mark.parametrize("noun_weight", [0.0, 1.0])
def test_stopped_run_ends_in_the_same_file(tool, config, tmp_path, noun_weight):
    config.pretrain.noun_weight = noun_weight
    whole = run(tool, config, tmp_path / "whole")
    assert run(tool, config, tmp_path / "parts", stop_at=2) is None
    assert run(tool, config, tmp_path / "parts", stop_at=3) is None
    parts = run(tool, config, tmp_path / "parts")
    assert whole.read_bytes() == parts.read_bytes()


def test_seeds_and_losses_differ(tool, config, tmp_path):
    files = [run(tool, config, tmp_path / "0").read_bytes()]
    config.pretrain.noun_weight = 0.0
    files.append(run(tool, config, tmp_path / "plain").read_bytes())
    config.pretrain.seed = 1
    files.append(run(tool, config, tmp_path / "1").read_bytes())
    assert len(set(files)) == 3


def test_work_dir_of_another_run_is_refused(tool, config, tmp_path):
    run(tool, config, tmp_path, stop_at=1)
    config.pretrain.lr = 1.0
    with pytest.raises(ValueError, match="--work-dir"):
        run(tool, config, tmp_path)


def test_result_loads_through_the_door_of_every_clip(tool, config, tmp_path):
    path = run(tool, config, tmp_path)
    tensors = load_file(path)
    ids, rows = tensors["token_embedding.ids"], tensors["token_embedding.rows"]
    assert ids.tolist() == sorted(set(ids.tolist())) and len(ids) == len(rows) < 50
    clip = load_clip(config.clip.model.to_dict(), str(path))
    assert clip.token_embedding.weight.shape == (49408, 16)
    assert torch.equal(clip.token_embedding.weight[ids], rows.float())
    words = open_clip.get_tokenizer("ViT-B-32")(
        [t.format(n) for t in tool.TEMPLATES for n in SHAPES_CLASSES], context_length=32
    )
    assert set(words.unique().tolist()) <= set(ids.tolist())  # no prompt uses an untrained row


def test_loss_falls_on_a_problem_it_can_solve(tool, config):
    torch.manual_seed(0)
    settings = dict(config.pretrain.to_dict(), lr=3e-3)
    data = tool.CaptionedScenes(settings, 64, 32)
    images, tokens, facts, claims = (
        torch.stack(part) for part in zip(*(data[i] for i in range(8)))
    )
    ids = tool.used_tokens()
    clip = tool.build(config.clip.model.to_dict(), len(ids))
    optim = tool.optimizer(clip, settings)
    nouns = torch.searchsorted(ids, tool.tokenize(SHAPES_CLASSES, 32))
    batch = (images.float() / 128 - 1, torch.searchsorted(ids, tokens), facts, claims, nouns)
    losses = []
    for _ in range(40):
        loss = tool.batch_loss(clip, *batch, settings)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_contrastive_loss_spreads_over_true_captions(tool):
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
    positive = torch.tensor([[True, True, False], [False, False, False]])
    rows = -(logits[0].log_softmax(0)[:2].mean())  # the second row has no positive
    columns = -(logits.log_softmax(0)[0, :2].mean())
    expected = 0.5 * (rows + columns)
    torch.testing.assert_close(tool.contrastive(logits, positive), expected)
    single = torch.eye(3, dtype=torch.bool)
    square = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    usual = 0.5 * sum(
        torch.nn.functional.cross_entropy(m, torch.arange(3)) for m in (square, square.T)
    )
    torch.testing.assert_close(tool.contrastive(square, single), usual)


def test_learning_rate_warms_up_and_falls_to_zero(tool):
    settings = dict(lr=1.0, warmup=10, steps=110)
    assert tool.learning_rate(0, settings) == pytest.approx(0.1)
    assert tool.learning_rate(10, settings) == pytest.approx(1.0)
    assert tool.learning_rate(60, settings) == pytest.approx(0.5)
    assert tool.learning_rate(110, settings) == pytest.approx(0.0, abs=1e-9)


def test_first_steps_show_one_large_object(tool, config):
    data = tool.CaptionedScenes(config.pretrain.to_dict(), 64, 32)
    assert len(data) == 48 and data.singles == 16
    assert all(data[i][2][:20].sum() <= 1 for i in range(16))
    assert any(data[i][2][:20].sum() > 1 for i in range(16, 48))


def test_evaluation_of_a_perfect_map_and_of_a_constant_one(tool, config, monkeypatch):
    """mIoU(S), mIoU(U) and hIoU of maps whose value is known."""
    from tools.shapes import evaluate_clip

    clip = load_clip(config.clip.model.to_dict())
    eye = torch.eye(len(SHAPES_CLASSES))
    monkeypatch.setattr(evaluate_clip, "class_embeddings", lambda *_: eye)
    scenes = []
    render = evaluate_clip.render_scene

    def remember(*args):
        scenes.append(render(*args))
        return scenes[-1]

    def oracle(_, images):
        chosen = scenes[-len(images) :]
        labels = torch.stack([torch.from_numpy(s.labels).long() for s in chosen])
        first = torch.tensor([s.objects[0].label for s in chosen])
        return eye[first], eye[labels.clamp(max=19)].flatten(1, 2)

    monkeypatch.setattr(evaluate_clip, "render_scene", remember)
    monkeypatch.setattr(evaluate_clip, "encode", oracle)
    result = evaluate_clip.evaluate(clip, config.preprocess, "crowd", count=40)
    assert result == pytest.approx(dict(accuracy=100, S=100, U=100, hIoU=100, mIoU=100))

    def constant(_, images):
        return eye[:1].expand(len(images), -1), eye[:1].expand(len(images), 64, -1)

    monkeypatch.setattr(evaluate_clip, "encode", constant)
    result = evaluate_clip.evaluate(clip, config.preprocess, "crowd", count=40)
    assert result["U"] == 0 and 0 < result["S"] < 100 / 15 and math.isclose(result["hIoU"], 0)


def test_severities_leave_clip_able_to_name_objects() -> None:
    from tools.shapes.evaluate_clip import camera_severity

    assert camera_severity(lambda severity: 98.0 - 20 * severity) == 0.4
    assert camera_severity(lambda severity: 30.0) == 0.0
