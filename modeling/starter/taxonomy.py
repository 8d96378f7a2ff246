"""The seeded taxonomy as plain data: tasks, dimensions and which dimension is asked of which task.

The seeding of the database, the starter world and the builder of the reward base read the same
wording here, so that the shipped base is asked exactly what it was trained on. `{prompt}` in a
dimension's query stands inside the question: what it names must come before the answer.
"""

from typing import Any, TypedDict


class TaskRow(TypedDict):
    name: str
    wording: str
    instruction: str
    fixed_prompt: str
    needs_source: bool
    needs_mask: bool
    weight: float
    active: bool


class DimensionRow(TypedDict):
    name: str
    question: str
    query: str
    guideline: str
    uses_prompt: bool
    active: bool


TASKS: dict[str, TaskRow] = {
    "fill": {
        "name": "Image fill",
        "wording": "image fill",
        "instruction": "The masked area was filled with what the prompt describes.",
        "fixed_prompt": "",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.3,
        "active": True,
    },
    "extend_prompt": {
        "name": "Image extend with prompt",
        "wording": "image extend with prompt",
        "instruction": "The picture was continued into the masked area, as the prompt describes.",
        "fixed_prompt": "",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.2,
        "active": True,
    },
    "extend_noprompt": {
        "name": "Image extend without prompt",
        "wording": "image extend",
        "instruction": "The picture was continued into the masked area.",
        "fixed_prompt": "high-definition, perfect composition",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.15,
        "active": True,
    },
    "removal": {
        "name": "Object removal",
        "wording": "object removal",
        "instruction": "What stood in the masked area was to be removed.",
        "fixed_prompt": "remove",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.15,
        "active": True,
    },
    "text_rendering": {
        "name": "Text rendering",
        "wording": "text rendering",
        "instruction": "The characters that the prompt asks for were written into the masked area.",
        "fixed_prompt": "",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.2,
        "active": True,
    },
    "background_replacement": {
        "name": "Background replacement",
        "wording": "background replacement",
        "instruction": "The background was replaced by what the prompt describes.",
        "fixed_prompt": "",
        "needs_source": True,
        "needs_mask": True,
        "weight": 0.1,
        "active": False,
    },
    "text_to_image": {
        "name": "Text to image",
        "wording": "text to image",
        "instruction": "The whole picture was made from the prompt alone.",
        "fixed_prompt": "",
        "needs_source": False,
        "needs_mask": False,
        "weight": 0.1,
        "active": False,
    },
}

DIMENSIONS: dict[str, DimensionRow] = {
    "text_alignment": {
        "name": "Text alignment",
        "question": "Which follows the prompt best, and which worst?",
        "query": 'Is the first image a better match for the prompt "{prompt}" than the second?',
        "guideline": (
            "Does the edited area show what the prompt asks for?\n\n"
            "- **Better:** the right thing is there, with its colour, number and place.\n"
            "- **Worse:** it is missing, is something else, or has the wrong colour, number "
            "or place.\n"
            "- A well drawn picture of something else is a bad match; a rough picture of "
            "the right thing is a better one.\n"
            "- Beauty and clean edges are judged elsewhere: leave them out here."
        ),
        "uses_prompt": True,
        "active": True,
    },
    "consistency": {
        "name": "Consistency",
        "question": "Which joins its surroundings best, and which worst?",
        "query": "Does the first image join its surroundings better than the second?",
        "guideline": (
            "Does the edited area join the picture around it?\n\n"
            "- **Better:** colour, light and texture go on across the mask’s edge, and no "
            "seam shows.\n"
            "- **Worse:** a visible border, a patch of another tone, a blur or a jump in "
            "the pattern.\n"
            "- Zoom to the mask and look along its edge.\n"
            "- Judge the join alone, not what was drawn inside."
        ),
        "uses_prompt": False,
        "active": True,
    },
    "structure": {
        "name": "Structure",
        "question": "Which has the soundest structure, and which the least sound?",
        "query": "Does the first image have sounder contours and structure than the second?",
        "guideline": (
            "Is what was drawn whole and sound?\n\n"
            "- **Better:** outlines close, parts hang together, perspective holds.\n"
            "- **Worse:** broken, doubled, melted or half-drawn forms; too many or too few "
            "parts.\n"
            "- What the prompt said does not matter here: a sound cat is sound even if a "
            "dog was asked for."
        ),
        "uses_prompt": False,
        "active": True,
    },
    "aesthetics": {
        "name": "Aesthetics",
        "question": "Which looks best, and which worst?",
        "query": "Does the first image look cleaner and more pleasing than the second?",
        "guideline": (
            "Which picture would you rather look at?\n\n"
            "- **Better:** clear, well composed, pleasing in colour, believable.\n"
            "- **Worse:** noise, blur, stray marks, harsh or dirty colours.\n"
            "- Look at the whole picture at its usual size, and go by your first "
            "impression."
        ),
        "uses_prompt": False,
        "active": True,
    },
    "removal_quality": {
        "name": "Removal quality",
        "question": "In which was the object removed best, and in which worst?",
        "query": "Was the object removed more cleanly in the first image than in the second?",
        "guideline": (
            "Is the object gone, as if it had never been there?\n\n"
            "- **Better:** nothing of it is left, and the area goes on as its surroundings "
            "do.\n"
            "- **Worse:** remains or shadows of it, smears, or a patch that repeats.\n"
            "- Something new in its place is worse than a slightly uneven patch."
        ),
        "uses_prompt": False,
        "active": True,
    },
    "text_rendering": {
        "name": "Text rendering",
        "question": "Which shows the asked characters best, and which worst?",
        "query": "Does the first image show {prompt} more legibly than the second?",
        "guideline": (
            "Are the asked characters there, and can they be read?\n\n"
            "- **Better:** every character that was asked for, in order, clear to read.\n"
            "- **Worse:** a wrong, missing, extra or swapped character.\n"
            "- A wrong or missing character is worse than an uneven one; read character by "
            "character."
        ),
        "uses_prompt": True,
        "active": True,
    },
    "style_consistency": {
        "name": "Style consistency",
        "question": "Which keeps the picture's style best, and which worst?",
        "query": "Does the first image keep the style of its surroundings better than the second?",
        "guideline": (
            "Is the edit made in the same manner as the rest of the picture?\n\n"
            "- **Better:** the same medium, palette, stroke and way of rendering.\n"
            "- **Worse:** a photograph in a drawing, another line width, another palette.\n"
            "- What is shown does not matter here, only how it is made."
        ),
        "uses_prompt": False,
        "active": False,
    },
    "texture_consistency": {
        "name": "Texture consistency",
        "question": "Which continues the surrounding texture best, and which worst?",
        "query": "Does the first image continue the surrounding texture better than the second?",
        "guideline": (
            "Does the surface go on as it is around the edit?\n\n"
            "- **Better:** grain, pattern and surface continue across the mask’s edge in "
            "scale and direction.\n"
            "- **Worse:** a smooth patch in a rough surface, or a pattern that jumps or "
            "changes its size.\n"
            "- Zoom in: this shows at full size."
        ),
        "uses_prompt": False,
        "active": False,
    },
    "artifacts": {
        "name": "Artifacts",
        "question": "Which has the fewest artifacts, and which the most?",
        "query": "Does the first image have fewer artifacts than the second?",
        "guideline": (
            "Which picture has the fewest traces of a machine?\n\n"
            "- **Look for:** grids, halos, colour fringes, repeated patches, checkerboards, "
            "bands.\n"
            "- **Better:** none that you can find; **worse:** ones that you see without "
            "searching.\n"
            "- Zoom in, and compare the flat areas."
        ),
        "uses_prompt": False,
        "active": False,
    },
    "overall": {
        "name": "Overall",
        "question": "Which is best overall, and which worst?",
        "query": "Is the first image better overall than the second?",
        "guideline": (
            "Which one would you rather use as it is?\n\n"
            "- Weigh everything together: the prompt, the join, the forms, the look.\n"
            "- A fault that makes a picture useless weighs more than several small ones.\n"
            "- If you would use either as gladly, choose no difference."
        ),
        "uses_prompt": False,
        "active": False,
    },
}

# (task, dimension, weight), in the order in which people are asked.
CRITERIA: list[tuple[str, str, float]] = [
    ("fill", "text_alignment", 1.0),
    ("fill", "consistency", 1.0),
    ("fill", "structure", 1.0),
    ("fill", "aesthetics", 1.0),
    ("extend_prompt", "text_alignment", 1.0),
    ("extend_prompt", "consistency", 1.0),
    ("extend_prompt", "structure", 1.0),
    ("extend_prompt", "aesthetics", 1.0),
    ("extend_noprompt", "consistency", 1.0),
    ("extend_noprompt", "structure", 1.0),
    ("extend_noprompt", "aesthetics", 1.0),
    ("removal", "removal_quality", 1.0),
    ("text_rendering", "text_rendering", 1.0),
    ("text_rendering", "consistency", 1.0),
    ("text_rendering", "structure", 1.0),
    ("text_rendering", "aesthetics", 1.0),
    # There are no surroundings to join: consistency is not asked.
    ("text_to_image", "text_alignment", 1.0),
    ("text_to_image", "structure", 1.0),
    ("text_to_image", "aesthetics", 1.0),
]

# What the starter policy was trained for: few steps, guidance embedding 0-50. Strength and true CFG
# move its quality most, so they are what makes candidates of a set differ.
SAMPLING_PLAN: dict[str, list[Any]] = {
    "steps": [3, 6, 10],
    "strength": [1.0, 0.9, 0.8],
    "guidance_scale": [5.0, 30.0, 45.0],
    "true_cfg_scale": [1.0, 2.0, 3.0],
    "negative_prompts": ["", "blurry", "low quality"],
}
