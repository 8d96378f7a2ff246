from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import ImageChops

from generation.diffusion.generate import Draw, Generator, Request, group_requests
from generation.diffusion.loading import FillModels
from tests.diffusion.tiny import SIZE, box_mask, picture


def _request(seed: int = 1, size: int = SIZE, source: int = 1, **values: Any) -> Request:
    draw = Draw(
        seed=seed,
        num_inference_steps=3,
        strength=1.0,
        guidance_scale=30.0,
        true_cfg_scale=1.0,
        negative_prompt="",
    )
    return Request(
        image=picture(source, size),
        mask=box_mask(size),
        prompt="red",
        draw=replace(draw, **values),
        key=f"{source}-{size}",
    )


def test_it_groups_by_size_steps_strength_and_true_cfg() -> None:
    requests = [
        _request(1),
        _request(2, num_inference_steps=5),
        _request(3, guidance_scale=2.0),
        _request(4, true_cfg_scale=3.0),
        _request(5, size=40),
        _request(6, strength=0.5),
        _request(7),
        _request(8, true_cfg_scale=2.0, negative_prompt="dark"),
    ]
    expected = [[0, 2], [6], [1], [3, 7], [4], [5]]
    assert group_requests(requests, max_batch=2) == expected


def test_it_refuses_a_mixed_batch(models: FillModels) -> None:
    with pytest.raises(ValueError, match="form batches with group_requests"):
        Generator(models).generate_batch([_request(), _request(num_inference_steps=5)])


def test_it_makes_the_same_bytes_from_the_same_batch(models: FillModels) -> None:
    requests = [_request(seed, source=seed % 2, guidance_scale=seed) for seed in range(1, 6)]
    generator = Generator(models)
    first = [image.tobytes() for image in generator.generate_batch(requests)]
    assert [image.tobytes() for image in generator.generate_batch(requests)] == first
    # A process that has cached nothing, or other sources, makes the same bytes.
    other = Generator(models)
    other.generate_batch([_request(9, source=7)])
    assert [image.tobytes() for image in other.generate_batch(requests)] == first
    assert len(set(first)) == 5


def test_it_answers_in_the_order_of_the_requests(models: FillModels) -> None:
    requests = [_request(1), _request(2, size=40), _request(3)]
    made = Generator(models, max_batch=1).generate(requests)
    assert [image.size for image in made] == [(SIZE, SIZE), (40, 40), (SIZE, SIZE)]
    assert made[2].tobytes() == Generator(models).generate_batch([requests[2]])[0].tobytes()


def test_it_uses_the_negative_prompt_only_with_true_cfg(models: FillModels) -> None:
    generator = Generator(models)

    def made(**values: Any) -> bytes:
        return generator.generate_batch([_request(1, **values)])[0].tobytes()

    assert made(negative_prompt="dark") == made()
    assert made(true_cfg_scale=8.0, negative_prompt="dark") != made()
    assert made(true_cfg_scale=8.0, negative_prompt="dark") != made(
        true_cfg_scale=8.0, negative_prompt="blurry"
    )


def test_it_does_not_mix_up_prompts_of_one_source(models: FillModels) -> None:
    generator = Generator(models)
    red = _request()
    blue = replace(red, prompt="blue")
    first = generator.generate_batch([red])[0]
    assert ImageChops.difference(first, generator.generate_batch([blue])[0]).getbbox()
    assert generator.generate_batch([red])[0].tobytes() == first.tobytes()


def test_it_follows_the_source_at_low_strength(models: FillModels) -> None:
    """An untrained transformer's velocity is small, so the picture stays."""
    generator = Generator(models)
    low = _request(1, num_inference_steps=20, strength=0.05)
    other = replace(low, image=picture(8), key="8")
    full = replace(low.draw, strength=1.0)
    made = generator.generate([low, other, replace(low, draw=full), replace(other, draw=full)])
    tensors = [torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in made]
    apart = [(tensors[i].float() - tensors[i + 1].float()).abs().mean() for i in (0, 2)]
    assert apart[0] > apart[1]
