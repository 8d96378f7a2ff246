from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from modeling.starter import truth, world
from modeling.starter.flaws import sample_flawed

PAIRS = [(task, name) for task in world.TASKS for name in world.DIMENSIONS[task]]


def examples(task: str, count: int, seed: int = 0) -> list[world.Example]:
    rng = np.random.default_rng(seed)
    return [world.sample_example(rng, task) for _ in range(count)]


@pytest.mark.parametrize("task", world.TASKS)
def test_it_finds_perfect_answers_perfect(task: str) -> None:
    for one in examples(task, 25):
        scores = truth.score(one.target, one.scene)
        assert tuple(scores) == world.DIMENSIONS[task]
        assert min(scores.values()) > 0.95


@pytest.mark.parametrize("task", world.TASKS)
def test_it_finds_an_untouched_source_unusable(task: str) -> None:
    for one in examples(task, 10):
        assert not truth.usable(truth.score(one.image, one.scene))


@pytest.mark.parametrize(("task", "dimension"), PAIRS)
def test_it_blames_the_dimension_that_was_flawed(task: str, dimension: str) -> None:
    rng = np.random.default_rng(7)
    scores = [
        truth.score(sample_flawed(rng, one, [dimension], severity=0.75), one.scene)
        for one in examples(task, 12)
    ]
    means = {name: np.mean([one[name] for one in scores]) for name in scores[0]}
    assert means[dimension] < 0.4
    assert all(
        value > means[dimension] + 0.25 for name, value in means.items() if name != dimension
    )


@pytest.mark.parametrize(("task", "dimension"), PAIRS)
def test_it_falls_with_the_severity_of_a_flaw(task: str, dimension: str) -> None:
    sources = examples(task, 14)
    slight, medium, grave = (
        np.mean(
            [
                truth.score(sample_flawed(rng, one, [dimension], severity=severity), one.scene)[
                    dimension
                ]
                for one in sources
            ]
        )
        for rng, severity in ((np.random.default_rng(8), s) for s in (0.1, 0.4, 0.9))
    )
    assert slight > medium > grave
    assert slight > 0.5


def test_it_accepts_a_slightly_displaced_object() -> None:
    one = next(e for e in examples("fill", 10) if e.scene.background.kind == "solid")
    moved = np.roll(one.target, 1, axis=1)
    moved[one.mask == 0] = one.target[one.mask == 0]
    assert truth.usable(truth.score(moved, one.scene))


def test_it_reads_every_digit_and_no_other() -> None:
    one = examples("text_rendering", 1)[0]
    for digit in world.DIGIT_CELLS:
        scene = world.Scene(
            one.scene.task, one.scene.background, one.scene.box, text=f"{digit}{digit}"
        )
        picture = world.target_picture(scene)
        assert truth.score(picture, scene)["text_rendering"] == 1
        for other in world.DIGIT_CELLS:
            asked = world.Scene(scene.task, scene.background, scene.box, text=f"{digit}{other}")
            assert (truth.score(picture, asked)["text_rendering"] >= 0.5) == (other == digit)


@pytest.mark.parametrize("task", world.TASKS)
def test_it_rejects_degenerate_pictures(task: str) -> None:
    rng = np.random.default_rng(9)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    grey = np.full((64, 64, 3), 128, np.uint8)
    checks = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    for one in examples(task, 5):
        for texture in (noise, grey, checks):
            inside = np.where((one.mask > 0)[..., None], texture, one.image)
            assert not truth.usable(truth.score(texture, one.scene))
            assert not truth.usable(truth.score(inside, one.scene))


def test_it_notices_blur_as_a_matter_of_aesthetics() -> None:
    for one in examples("fill", 10):
        blurred = np.asarray(Image.fromarray(one.target).filter(ImageFilter.GaussianBlur(2)))
        answer = np.where((one.mask > 0)[..., None], blurred, one.target)
        assert truth.score(answer, one.scene)["aesthetics"] < 0.5


def test_it_counts_what_was_changed_outside_the_mask() -> None:
    one = examples("removal", 1)[0]
    answer = one.target.copy()
    answer[one.mask == 0] = 255 - answer[one.mask == 0]
    assert truth.score(answer, one.scene)["removal_quality"] == 0


def test_it_is_usable_only_when_every_dimension_is() -> None:
    assert truth.usable({"structure": 0.5, "aesthetics": 1.0})
    assert not truth.usable({"structure": 0.49, "aesthetics": 1.0})


def test_it_refuses_pictures_of_another_size_or_type() -> None:
    one = examples("fill", 1)[0]
    with pytest.raises(ValueError, match="64 x 64 x 3, not uint8 of 32 x 32 x 3"):
        truth.score(one.target[:32, :32], one.scene)
    with pytest.raises(ValueError, match="not float64"):
        truth.score(one.target.astype(np.float64), one.scene)


def test_it_refuses_a_flaw_the_task_does_not_have() -> None:
    one = examples("removal", 1)[0]
    with pytest.raises(ValueError, match=r"structure.*can't be flawed in removal"):
        sample_flawed(np.random.default_rng(0), one, ["structure"])


@pytest.mark.parametrize("task", ["fill", "extend_prompt"])
def test_it_reads_colour_and_shape_off_a_picture(task: str) -> None:
    for one in examples(task, 15):
        subject = one.scene.subject
        assert subject is not None
        wanted = list(world.COLOURS).index(subject.colour), world.SHAPES.index(subject.shape)
        assert truth.shows(one.target, one.scene) == (*wanted, -1, -1)


def test_it_reads_digits_off_a_picture() -> None:
    for one in examples("text_rendering", 15):
        first, second = tuple(one.scene.text)
        assert truth.shows(one.target, one.scene) == (-1, -1, int(first), int(second))


def test_it_reads_what_is_there_and_not_what_the_prompt_asks_for() -> None:
    for one in examples("text_rendering", 10):
        asked = replace(one.scene, text=f"{(int(one.scene.text[0]) + 3) % 10}{one.scene.text[1]}")
        assert truth.shows(one.target, asked) == truth.shows(one.target, one.scene)


@pytest.mark.parametrize("task", world.TASKS)
def test_it_reads_nothing_where_nothing_can_be_made_out(task: str) -> None:
    for one in examples(task, 5):
        empty = world.to_pixels(world.surroundings(one.scene))
        assert truth.shows(empty, one.scene) == (-1, -1, -1, -1)
