"""The page in a real browser, if there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import open_clip
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.browser import Visitor, find_browser, served
from tests.helpers.shapes_run import tiny_config

pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page for a small model."""
    folder = tmp_path_factory.mktemp("page")
    cfg = tiny_config("otseg_plus", folder)
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, folder / "w.pth")
    cfg.dump(folder / "config.py")
    model = ["--model", str(folder / "config.py"), "--weights", str(folder / "w.pth")]
    with served(model, folder) as address:
        yield address


def visit(url: str, profile: Path) -> Visitor:
    pytest.importorskip("selenium", reason="selenium is not installed")
    if find_browser() is None:
        pytest.skip("no chromium with chromedriver is installed")
    return Visitor(url, profile)


@pytest.fixture(scope="module")
def arrive(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Visitor]]:
    visitors: list[Visitor] = []

    def come() -> Visitor:
        visitors.append(visit(url, tmp_path_factory.mktemp("profile")))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.driver.quit()


@pytest.fixture(scope="module")
def visitor(arrive: Callable[[], Visitor]) -> Visitor:
    return arrive()


def test_names() -> None:
    from mmseg_otseg.demo.page import format_names, parse_names

    assert parse_names("cat,\n sofa ") == parse_names("cat\nsofa") == ["cat", "sofa"]
    assert parse_names(" \n ") is None
    for names in (["cat", "chair, wooden"], ["zebra"]):
        assert parse_names(format_names(names)) == names


SAMPLE = "#samples .grid-container > :nth-child(2) button"


def test_only_this_machine_is_asked_and_answered(url: str) -> None:
    assert url.startswith("http://127.0.0.1:")
    with urlopen(url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(url, headers={"Host": "rebound.example"}))


def test_it_opens_with_a_result_and_segments_a_sample(visitor: Visitor) -> None:
    assert visitor.wait_for(visitor.source) and visitor.texts("#legend .number")
    assert "OTSeg+" in visitor.one("#about").text and "shapes only" in visitor.one("#about").text
    visitor.after(lambda: visitor.press(SAMPLE))
    shares = [float(text.rstrip("%")) for text in visitor.texts("#legend .number")]
    assert shares and sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    asked = visitor.driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert asked and all("//127.0.0.1:" in address for address in asked)
    assert not [e for e in visitor.driver.get_log("browser") if "Security Policy" in e["message"]]


def test_other_names(visitor: Visitor) -> None:
    before = visitor.one("#legend").text
    visitor.type_names("zebra, zebra")
    visitor.press("#segment")
    assert "more than once" in visitor.message()
    assert visitor.one("#legend").text == before and visitor.source()
    assert not visitor.all("#result .error")  # the result is not covered
    visitor.type_names("zebra, red circle")
    visitor.after(lambda: visitor.press("#segment"))
    legend = visitor.one("#legend").text
    assert ("zebra" in legend or "red circle" in legend) and "blue" not in legend
    assert ("no masks in training" in legend) == ("zebra" in legend)


def test_a_click_tells_classes_and_prompts(visitor: Visitor) -> None:
    visitor.after(lambda: visitor.click_at(0.25, 0.75))
    assert visitor.wait_for(lambda: len(visitor.texts("#best-rows .row")) == 2)
    assert visitor.place() == pytest.approx([16, 48], abs=1)
    assert visitor.wait_for(lambda: len(visitor.all("#maps img")) == 6)
    shares = [float(text.split()[-1].rstrip("%")) for text in visitor.texts("#maps figcaption")]
    assert len(shares) == 6 and sum(shares) == pytest.approx(100, abs=0.5)


def test_the_threshold_and_the_mask(visitor: Visitor) -> None:
    from selenium.webdriver import Keys

    slider = visitor.one("#none input[type=range]")
    slider.send_keys(Keys.END)
    assert visitor.wait_for(lambda: "none of these\n100.0%" in visitor.one("#legend").text)
    visitor.press("#save")
    downloads = visitor.profile / "downloads"
    mask = visitor.wait_for(lambda: [*downloads.glob("*.png")])[0]
    assert (np.asarray(Image.open(mask)) == 2).all()  # the index after those of two classes
    slider.send_keys(Keys.HOME)
    assert visitor.wait_for(lambda: "none of these" not in visitor.one("#legend").text)


def test_an_image_of_ones_own_and_a_broken_one(visitor: Visitor, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 120, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "own.png")
    visitor.after(lambda: visitor.upload(tmp_path / "own.png"))

    def clicked() -> bool:  # again, if the page was still showing the image
        visitor.click_at(0.25, 0.5)
        return visitor.place() == pytest.approx([30, 20], abs=1)  # of 120 x 40

    visitor.wait_for(clicked)
    before = visitor.source()
    (tmp_path / "broken.png").write_bytes((tmp_path / "own.png").read_bytes()[:70])
    visitor.upload(tmp_path / "broken.png")
    visitor.wait_for(lambda: "decoded" in visitor.message())
    assert visitor.source() == before


def test_two_users_keep_their_own_names(visitor: Visitor, arrive: Callable[[], Visitor]) -> None:
    other = arrive()
    other.after(lambda: other.press(SAMPLE))
    users = {visitor: ("apple", "pear"), other: ("hammer", "saw", "nail")}

    def use(user: Visitor) -> None:
        for _ in range(2):
            user.after(lambda: user.press("#segment"))
            user.wait_for(lambda: users[user][0] in user.one("#legend").text)  # after the image
            seen.append((user, user.one("#legend").text))
            user.after(lambda: user.click_at(0.5, 0.5))

    seen: list[tuple[Visitor, str]] = []
    for user, names in users.items():
        user.type_names(", ".join(names))
    with ThreadPoolExecutor() as both:
        for done in [both.submit(use, user) for user in users]:
            done.result()
    for user, legend in seen:
        for names in users.values():
            assert all((name in legend) == (names is users[user]) for name in names)


@pytest.mark.slow
def test_both_tabs_in_a_window_and_on_a_telephone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-16-quickgelu")
    save_file(clip.half().state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setenv("CLIP_WEIGHTS", str(tmp_path / "clip.safetensors"))
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for name, size in (("wide", (60, 120, 3)), ("tall", (120, 80, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(photos / f"{name}.png")
    with served(["--images", str(photos)], tmp_path) as address:
        visitor = visit(address, tmp_path / "profile")
        try:
            assert visitor.wait_for(visitor.source)
            for prefix in ("", "photos-"):
                visitor.press(f"#{prefix}tab-button")
                assert visitor.wait_for(partial(visitor.source, f"#{prefix}result"))
                for width in (1280, 400):
                    visitor.resize(width)
                    assert visitor.wait_for(visitor.fits)
            assert "NACLIP" in visitor.one("#photos-about").text
            assert len(visitor.all("#photos-samples img")) == 2
        finally:
            visitor.driver.quit()
