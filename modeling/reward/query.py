"""The question that the reward VLM answers: q = Phi(task, dimension, prompt) of OneReward.

The wording is this project's own; tasks and dimensions bring theirs from the taxonomy, where it is
editable and versioned. A prompt appears only for dimensions that judge it, and stands inside the
question, at the place that the dimension's query marks with `{prompt}`: read left to right, a
causal language model then knows what to look for before it has to answer.
"""

from __future__ import annotations

PLACEHOLDER = "{prompt}"


def render_query(*, task: str, question: str, prompt: str | None) -> str:
    """Render one yes/no question about two images.

    Args:
        task: the task's wording, e.g. "image fill".
        question: the dimension's query; Yes means that the first image is better.
        prompt: the source's prompt for dimensions that use it, else None.

    Raises:
        ValueError: the question asks for a prompt and there is none.
    """
    question = " ".join(question.split())
    wanted = PLACEHOLDER in question
    if prompt is None and wanted:
        raise ValueError(
            f'The query "{question}" names {PLACEHOLDER} but its dimension does not use the '
            "prompt; mark the dimension as using the prompt or reword the query."
        )
    if prompt is not None:
        prompt = " ".join(prompt.split())
        if not prompt:
            raise ValueError(f'The query "{question}" needs a prompt, and the prompt is empty.')
        if wanted:
            question = question.replace(PLACEHOLDER, prompt)
        else:
            question = f'For the prompt "{prompt}": {question}'
    return f"Task: {task}. {question} Answer Yes or No."
