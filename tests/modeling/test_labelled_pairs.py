"""Policy trainings that learn from labelled pairs: what the database gives them."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotation.models import Judgment
from generation import shared
from generation.models import Policy, Source, Split
from modeling import runs
from modeling.models import Snapshot, TrainingRun
from tests.modeling.project import CONFIG, Project, make_judged_campaign, make_snapshot

DPO = {**CONFIG["policy"], "algorithm": "diffusion_dpo"}


def _rows(run: TrainingRun, name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (shared.place(run.directory) / name).read_text().splitlines()
    ]


def test_it_writes_the_pairs_of_a_snapshot(project: Project) -> None:
    snapshot = make_snapshot(project)

    run = runs.start_policy(
        parent=project.policy, reward=project.reward, config=DPO, snapshot=snapshot
    )

    assert run.snapshot == snapshot
    rows = _rows(run, "pairs.jsonl")
    direct = [row for row in rows if row["relation"] == "direct"]
    picked = Judgment.objects.filter(outcome=Judgment.Outcome.PICKED)
    assert len(direct) == picked.count()
    assert {row["weight"] for row in direct} == {1.0}
    assert {row["split"] for row in rows} == {"train", "holdout"}
    splits = {str(pk): split for pk, split in Source.objects.values_list("pk", "split")}
    assert all(splits[row["source"]] == row["split"] for row in rows)
    directory = shared.place(run.directory)  # what lies in it is named by it
    assert all((directory / row[key]).is_file() for row in rows for key in ("chosen", "rejected"))
    # The pictures are those that the annotators named.
    one = picked.select_related("best__image", "worst__image", "set", "dimension").first()
    assert one is not None
    assert one.best is not None
    assert one.best.image is not None
    mine = [
        row
        for row in direct
        if (row["source"], row["dimension"]) == (str(one.set.source_id), one.dimension.slug)
    ]
    assert [Path(row["chosen"]).stem for row in mine] == [one.best.image.sha256]
    trained = {row["id"] for row in _rows(run, "sources.jsonl") if row["split"] == Split.TRAIN}
    assert {row["source"] for row in rows if row["split"] == Split.TRAIN} <= trained


def test_it_takes_the_labels_that_the_reward_model_learnt_from(project: Project) -> None:
    project.reward.snapshot = make_snapshot(project)
    project.reward.save()

    run = runs.start_policy(parent=project.policy, reward=project.reward, config=DPO)
    other = runs.start_policy(parent=project.policy, reward=project.reward, config=CONFIG["policy"])

    assert run.snapshot == project.reward.snapshot
    assert (shared.place(run.directory) / "pairs.jsonl").is_file()
    assert other.snapshot is None
    assert not (shared.place(other.directory) / "pairs.jsonl").exists()


def test_it_says_that_there_are_no_labels(project: Project, tmp_path: Path) -> None:
    with pytest.raises(runs.RunFailed, match="'sft' learns from labelled pairs"):
        runs.start_policy(
            parent=project.policy, reward=project.reward, config={**DPO, "algorithm": "sft"}
        )
    with pytest.raises(CommandError, match="There is no label to learn from"):
        call_command("train_policy", algorithm="diffusion_dpo", stderr=StringIO())
    assert not Snapshot.objects.exists()

    snapshot = make_snapshot(project)
    snapshot.judgments.remove(*snapshot.judgments.filter(set__source__split=Split.TRAIN))
    with pytest.raises(runs.RunFailed, match="no judgment with a best and a worst on a training"):
        runs.start_policy(
            parent=project.policy, reward=project.reward, config=DPO, snapshot=snapshot
        )
    assert not TrainingRun.objects.exists()


@pytest.mark.slow
def test_it_trains_on_all_labels_there_are(project: Project, tmp_path: Path) -> None:
    make_judged_campaign(project)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG["policy"]))
    said = StringIO()

    call_command(
        "train_policy",
        algorithm="diffusion_dpo",
        config=str(config),
        stdout=said,
        stderr=StringIO(),
    )

    policy = Policy.objects.get(parent=project.policy)
    assert f"Registered policy '{policy}'" in said.getvalue()
    run = TrainingRun.objects.get(policy=policy)
    assert run.result["accuracy"] >= 0
    assert run.snapshot is not None
    assert policy.card["snapshot"] == run.snapshot.content_hash
    assert policy.card["config"]["algorithm"] == "diffusion_dpo"
