from __future__ import annotations

import pytest

from modeling.reward.query import render_query


def test_it_puts_the_prompt_inside_the_question() -> None:
    query = render_query(
        task="image fill", question="Does the first image show {prompt}?", prompt='the number "42"'
    )
    assert query == (
        'Task: image fill. Does the first image show the number "42"? Answer Yes or No.'
    )


def test_it_leaves_the_prompt_out_where_the_dimension_does_not_use_it() -> None:
    query = render_query(task="object removal", question=" Is it\n gone? ", prompt=None)
    assert query == "Task: object removal. Is it gone? Answer Yes or No."


def test_it_places_the_prompt_before_a_question_without_a_place_for_it() -> None:
    query = render_query(task="image fill", question="Is it better?", prompt="a {red} circle")
    assert query == (
        'Task: image fill. For the prompt "a {red} circle": Is it better? Answer Yes or No.'
    )


def test_it_refuses_a_prompt_question_without_a_prompt() -> None:
    with pytest.raises(ValueError, match="does not use the prompt"):
        render_query(task="image fill", question="Shows it {prompt}?", prompt=None)
    with pytest.raises(ValueError, match="the prompt is empty"):
        render_query(task="image fill", question="Shows it {prompt}?", prompt="  ")
