import json

import numpy as np
import pytest

from modeling.starter import world


@pytest.mark.parametrize("task", world.TASKS)
def test_it_draws_the_same_example_from_the_same_seed(task: str) -> None:
    first = world.sample_example(np.random.default_rng(5), task)
    again = world.sample_example(np.random.default_rng(5), task)
    other = world.sample_example(np.random.default_rng(6), task)
    assert first.scene == again.scene
    assert (first.image == again.image).all()
    assert (first.target == again.target).all()
    assert (first.target != other.target).any()


@pytest.mark.parametrize("task", world.TASKS)
def test_it_changes_nothing_outside_the_mask(task: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        example = world.sample_example(rng, task)
        outside = example.mask == 0
        assert set(np.unique(example.mask)) == {0, 255}
        assert (example.image[outside] == example.target[outside]).all()
        assert (example.image != example.target).any() or task == "fill"


@pytest.mark.parametrize("task", world.TASKS)
def test_it_restores_a_scene_from_json_with_the_same_pictures(task: str) -> None:
    example = world.sample_example(np.random.default_rng(1), task)
    scene = world.Scene.from_dict(json.loads(json.dumps(example.scene.to_dict())))
    restored = world.example_of(scene)
    assert scene == example.scene
    assert restored.prompt == example.prompt
    assert (restored.image == example.image).all()
    assert (restored.target == example.target).all()


def test_it_words_its_prompts_by_task() -> None:
    rng = np.random.default_rng(2)
    words = world.sample_example(rng, "fill").prompt.split()
    assert words[0] == "a"
    assert words[1] in world.COLOURS
    assert words[2] in world.SHAPES
    number = world.sample_example(rng, "text_rendering")
    assert number.prompt == f'the number "{number.scene.text}"'
    assert len(number.scene.text) == 2
    assert world.sample_example(rng, "removal").prompt == "remove"
    assert world.sample_example(rng, "extend_noprompt").prompt == world.EXTEND_PROMPT


def test_it_keeps_masks_on_the_four_pixel_grid() -> None:
    rng = np.random.default_rng(3)
    for task in world.TASKS:
        for _ in range(10):
            box = world.sample_scene(rng, task).box
            assert all(edge % world.GRID == 0 and 0 <= edge <= world.SIZE for edge in box)


def test_it_shows_what_has_to_go_only_in_a_removals_source() -> None:
    example = world.sample_example(np.random.default_rng(4), "removal")
    subject = example.scene.subject
    assert subject is not None
    middle = (int(subject.y), int(subject.x))
    assert tuple(example.image[middle]) == world.COLOURS[subject.colour]
    assert tuple(example.target[middle]) != world.COLOURS[subject.colour]


def test_it_refuses_an_unknown_task_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown task 'inpaint'.*extend_noprompt"):
        world.sample_scene(np.random.default_rng(0), "inpaint")
