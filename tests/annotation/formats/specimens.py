"""Small files as others write them, by hand, with their true field names; nothing of ours is used.

Pictures are numbered: `PICTURES[1]` is a picture's PNG, which path-based specimens have as `1.png`.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.factories import make_mask_picture, make_picture

Row = dict[str, Any]


def _png(picture: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


PICTURES = {n: _png(make_picture(500 + n)) for n in range(1, 13)}
MASK = _png(make_mask_picture())
PROMPT = "a red circle"


def cell(n: int) -> Row:
    """A picture as the `datasets` library stores it."""
    return {"bytes": PICTURES[n], "path": f"{n}.png"}


# One good row of each: the first picture is preferred, the source is picture 9.


def pickapic() -> Row:
    return {
        "are_different": True,
        "best_image_uid": "u1",
        "caption": PROMPT,
        "created_at": None,
        "has_label": True,
        "image_0_uid": "u1",
        "image_0_url": "https://example.com/u1.png",
        "image_1_uid": "u2",
        "image_1_url": "https://example.com/u2.png",
        "jpg_0": PICTURES[1],
        "jpg_1": PICTURES[2],
        "label_0": 1.0,
        "label_1": 0.0,
        "model_0": "dreamlike-art/dreamlike-photoreal-2.0",
        "model_1": "stabilityai/stable-diffusion-2-1",
        "num_example_per_prompt": 1,
        "ranking_id": 17,
        "user_id": 4711,
    }


def hpdv2() -> Row:
    return {"prompt": PROMPT, "file_path": ["1.png", "2.png"], "human_preference": [1, 0]}


def hpdv2_test() -> Row:
    return {
        "prompt": PROMPT,
        "image_path": ["1.png", "2.png", "3.png"],
        "rank": [1, 2, 3],
        "raw_annotations": [
            {"rank": [1, 2, 3], "user_hash": "a1"},
            {"rank": [3, 2, 1], "user_hash": "b2"},
            {"rank": [1, 1, 2], "user_hash": "c3"},
        ],
    }


def hpdv3() -> Row:
    return {
        "prompt": PROMPT,
        "choice_dist": [3, 1],
        "confidence": 0.75,
        "path1": "1.png",
        "path2": "2.png",
        "model1": "flux",
        "model2": "kolors",
    }


def imagerewarddb() -> Row:
    return {
        "image": cell(1),
        "prompt_id": "004532-0009",
        "prompt": PROMPT,
        "classification": "People",
        "image_amount_in_total": 3,
        "rank": 1,
        "overall_rating": 6,
        "image_text_alignment_rating": 5,
        "fidelity_rating": 7,
    }


def imagereward_test() -> Row:
    return {
        "id": "004532-0009",
        "prompt": PROMPT,
        "generations": ["1.png", "2.png", "3.png"],
        "ranking": [1, 2, 3],
    }


def editreward_data() -> Row:
    return {
        "prompt": PROMPT,
        "choice_dist": None,
        "confidence": None,
        "path_src": "9.png",
        "path1": "1.png",
        "path2": "2.png",
        "model1": "ovis_u1",
        "model2": "qwen_edit_seed2025",
        "model1_dim1_score": 4,
        "model1_dim2_score": 2,
        "model1_overall_score": 6,
        "model2_dim1_score": 3,
        "model2_dim2_score": 2,
        "model2_overall_score": 5,
        "tie_case": False,
    }


def editreward_bench() -> Row:
    return {
        "key": ["k1", "k2"],
        "instruction": PROMPT,
        "input_image": cell(9),
        "output_images": [cell(1), cell(2)],
        "task_type": "color_alter",
        "dimension": "overall",
    }


def editreward_bench_of_tiger_lab() -> Row:
    return {
        "id": "7",
        "dataset": "2pair",
        "instruction": PROMPT,
        "source_image": cell(9),
        "candidate_1": cell(1),
        "candidate_2": cell(2),
        "model_1": "one",
        "model_2": "two",
        "ranking": "A>B",
    }


def genai_bench() -> Row:
    return {
        "source_prompt": "a blue circle",
        "target_prompt": "a red circle",
        "instruct_prompt": PROMPT,
        "source_image": cell(9),
        "left_model": "MagicBrush",
        "left_output_image": cell(1),
        "right_model": "CosXLEdit",
        "right_output_image": cell(2),
        "vote_type": "leftvote",
    }


def mmrb2() -> Row:
    return {
        "pair_id": "edit_1",
        "prompt_source": "emu_edit",
        "prompt_content": [["text", PROMPT], ["image", "9.png"]],
        "prompt_metadata": {},
        "response_a": {"model": "gpt", "response_content": [["image", "1.png"]]},
        "response_b": {"model": "nano", "response_content": [["image", "2.png"]]},
        "chosen": "A",
        "human_annotations": {},
    }


def videoalign() -> Row:
    return {
        "path_A": "1.png",
        "path_B": "2.png",
        "prompt": PROMPT,
        "overall": "A",
        "aesthetics": "same",
        "fps_A": "24",
        "num_frames_A": "1",
    }


def rapidata() -> Row:
    votes = [{"votedFor": name, "userDetails": {"country": "CH"}} for name in ("1.png", "2.png")]
    return {
        "prompt": PROMPT,
        "image1": cell(1),
        "image2": cell(2),
        "model1": "flux-1.1-pro",
        "model2": "dalle-3",
        "weighted_results_image1_preference": 0.7,
        "weighted_results_image2_preference": 0.3,
        "detailed_results_preference": json.dumps([votes[0], votes[0], votes[1]]),
    }


def trl() -> Row:
    ask = [{"type": "image", "text": None}, {"type": "text", "text": PROMPT}]
    made = [{"role": "assistant", "content": [{"type": "image", "text": None}]}]
    return {
        "prompt": [{"role": "user", "content": ask}],
        "chosen": made,
        "rejected": made,
        "images": [cell(9), cell(1), cell(2)],
    }


_TEXT = [{"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}]
TEXTS: Row = {"prompt": _TEXT, "chosen": _TEXT, "rejected": _TEXT, "images": []}


def label_studio() -> Row:
    result = {
        "from_name": "overall",
        "to_name": "image1,image2",
        "type": "pairwise",
        "value": {"selected": "left"},
    }
    return {
        "id": 1,
        "data": {"prompt": PROMPT, "source": "9.png", "image1": "1.png", "image2": "2.png"},
        "annotations": [
            {
                "id": 11,
                "completed_by": 3,
                "result": [result],
                "lead_time": 7.5,
                "was_cancelled": False,
            }
        ],
    }


def argilla() -> Row:
    return {
        "id": "r1",
        "status": "completed",
        "prompt": PROMPT,
        "source": "9.png",
        "image_0": "1.png",
        "image_1": "2.png",
        "overall.responses": ["image_0"],
        "overall.responses.users": ["59f7bf7b"],
        "overall.responses.status": ["submitted"],
        "overall.suggestion": None,
    }


def webdataset() -> Row:
    return {
        "chosen.png": PICTURES[1],
        "rejected.png": PICTURES[2],
        "source.png": PICTURES[9],
        "json": {"prompt": PROMPT, "dimension": "overall"},
    }


FILES: dict[str, tuple[str, Callable[[], Row]]] = {
    "pickapic": ("train.parquet", pickapic),
    "hpdv2": ("train.json", hpdv2),
    "hpdv3": ("train.json", hpdv3),
    "imagerewarddb": ("train.parquet", imagerewarddb),
    "editreward-data": ("train.json", editreward_data),
    "editreward-bench": ("train.parquet", editreward_bench),
    "genai-bench": ("test.parquet", genai_bench),
    "mmrb2": ("edit.json", mmrb2),
    "videoalign": ("train.csv", videoalign),
    "rapidata": ("train.parquet", rapidata),
    "trl": ("train.parquet", trl),
    "label-studio": ("tasks.json", label_studio),
    "argilla": ("records.jsonl", argilla),
    "webdataset": ("train-000000.tar", webdataset),
}


def put(folder: Path, name: str, rows: list[Row]) -> Path:
    """The rows as a file of that name, with all numbered pictures beside it."""
    if not folder.is_dir() or not any(folder.glob("*.png")):
        folder.mkdir(parents=True, exist_ok=True)
        for n, data in PICTURES.items():
            (folder / f"{n}.png").write_bytes(data)
        (folder / "mask.png").write_bytes(MASK)
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".tar"):
        with tarfile.open(path, "w") as tar:
            for number, row in enumerate(rows):
                for ending, value in row.items():
                    data = value if isinstance(value, bytes) else json.dumps(value).encode()
                    member = tarfile.TarInfo(f"{number:06d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    else:
        content = {"pairs": rows} if name == "edit.json" else rows
        path.write_text(json.dumps(content))
    return path
