import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from generation import images
from generation.models import Policy, Source
from generation.ownership import JobState
from modeling.models import Evaluation, RewardModel, Round, TrainingRun
from modeling.reward.rerank import DECIMALS
from tests.modeling.project import CONFIG, Project, make_judged_campaign, make_snapshot


def call(name: str, *arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO(), **options)
    return out.getvalue()


@pytest.mark.slow
def test_it_turns_the_loop_end_to_end(project: Project, tmp_path: Path) -> None:
    config, figures = tmp_path / "config.json", tmp_path / "out.json"
    config.write_text(json.dumps(CONFIG))

    said = call(
        "run_round",
        annotators="simulated",
        config=str(config),
        keep_going=True,
        json=str(figures),
        noise=0.1,
    )

    round_ = Round.objects.get()
    assert round_.finished_at is not None
    assert {step.state for step in round_.steps.all()} == {JobState.SUCCEEDED}
    assert round_.config["noise"] == 0.1
    written = json.loads(figures.read_text())
    assert written["seeds"] == 1
    (report,) = written["rounds"]
    for cell in report["reward_accuracy"]["removal"].values():
        assert set(cell) == {"accuracy", "low", "high", "n"}
    assert "prompt_swap_accuracy" in report
    assert set(report["usable"]) == {"fill", "removal", "all"}
    assert set(report["usable"]["all"]) >= {"parent", "new", "difference", "low", "high", "n"}
    assert report["usable"]["all"]["n"] == 6
    assert set(report["dimensions"]["removal"]["removal_quality"]) >= {
        "parent",
        "new",
        "low",
        "high",
    }
    assert len(report["win_tie_lose"]) == 3
    assert set(report["gates"]) == {"reward", "policy"}
    assert all(set(gate) == {"passed", "reason"} for gate in report["gates"].values())
    start, after = written["usable_over_rounds"]
    assert (start["round"], start["policy"], start["n"]) == (None, "tiny base", 6)
    assert (after["round"], after["policy"], after["difference"]) == (1, "tiny base", 0.0)
    assert after["new"] == pytest.approx(report["usable"]["all"]["new"])
    assert after["low"] <= after["usable"] <= after["high"]
    assert "of the policy that each round left active" in said
    assert "fill × structure" in said
    assert round_.outcome in said
    assert Evaluation.objects.filter(policy=round_.policy).get().pairs.count() == 6
    assert Policy.objects.filter(parent=project.policy).count() == 1


def test_it_waits_for_people_and_says_where_they_label(project: Project, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG | {"sets_per_task": 1, "holdout_sets_per_task": 1}))

    said = call("run_round", annotators="human", config=str(config))

    assert "waits for labels: 0 of 4 sets" in said
    assert "/label/" in said
    with pytest.raises(CommandError, match="still open.*--resume"):
        call("run_round", annotators="human")
    assert "waits for labels" in call("run_round", resume=True)
    assert Round.objects.count() == 1


def test_it_names_a_wrong_round_setting(project: Project) -> None:
    with pytest.raises(CommandError, match="Did you mean 'sets_per_task'"):
        call("run_round", "--annotators", "simulated", "--set", "sets_per_tsk=3")
    with pytest.raises(CommandError, match="Did you mean 'anchor_weight'"):
        call("run_round", "--annotators", "simulated", "--set", "policy.anchor_wait=3")
    with pytest.raises(CommandError, match="write KEY=VALUE"):
        call("run_round", "--annotators", "simulated", "--set", "noise")
    with pytest.raises(CommandError, match="do not build on each other"):
        call("run_round", "--seeds", "2", "--rounds", "2")
    assert not Round.objects.exists()


def test_it_says_that_no_round_is_open(project: Project) -> None:
    with pytest.raises(CommandError, match="no open round"):
        call("run_round", resume=True)


@pytest.mark.slow
def test_it_trains_and_measures_a_reward_model(project: Project, tmp_path: Path) -> None:
    make_judged_campaign(project)
    settings = [f"--set={key}={value}" for key, value in CONFIG["reward"].items()]

    said = call("train_reward", *settings, json=str(tmp_path / "out.json"))

    model = RewardModel.objects.get(parent=project.reward)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["reward_model"] == model.name
    assert written["comparison"]["n"] > 0
    assert "prompt-swap accuracy" in said
    assert "position consistency" in said
    assert f"Registered reward model '{model}'." in said

    said = call("evaluate_reward", reward=model.name, json=str(tmp_path / "again.json"))

    again = json.loads((tmp_path / "again.json").read_text())["figures"]
    first = written["figures"]["reward_accuracy"]
    assert again["reward_accuracy"] == first
    assert "removal × removal_quality" in said


def test_it_refuses_a_wrong_reward_setting(project: Project, tmp_path: Path) -> None:
    make_judged_campaign(project)

    with pytest.raises(CommandError, match="Did you mean 'lora_rank'"):
        call("train_reward", "--set", "lora_rnk=4")
    with pytest.raises(CommandError, match="lr must be"):
        call("train_reward", "--set", "lr=fast")
    with pytest.raises(CommandError, match="no-such.json' cannot be read"):
        call("train_reward", "--config", str(tmp_path / "no-such.json"))
    with pytest.raises(CommandError, match="no reward run '77'"):
        call("train_reward", "--resume", "77")
    with pytest.raises(CommandError, match="no reward model 'nobody'"):
        call("train_reward", "--parent", "nobody")
    assert not TrainingRun.objects.exists()


@pytest.mark.slow
def test_it_trains_and_compares_a_policy(project: Project, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG["policy"]))

    said = call(
        "train_policy",
        algorithm="dynamic",
        config=str(config),
        json=str(tmp_path / "out.json"),
    )

    policy = Policy.objects.get(parent=project.policy)
    assert f"Registered policy '{policy}'" in said
    assert json.loads((tmp_path / "out.json").read_text())["config"]["algorithm"] == "dynamic"

    said = call(
        "evaluate_policy",
        "--set=num_inference_steps=2",
        policy=policy.name,
        sources=2,
        json=str(tmp_path / "figures.json"),
    )

    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"]["usable"]["all"]["n"] == 4
    assert "never evidence by itself" in said


def test_it_refuses_to_compare_a_base_with_nothing(project: Project) -> None:
    with pytest.raises(CommandError, match="no parent to compare with"):
        call("evaluate_policy")
    with pytest.raises(CommandError, match="Did you mean 'true_cfg_scale'"):
        call("evaluate_policy", "--parent", "tiny base", "--set", "true_cfg_scal=2")


def test_it_ranks_pictures(project: Project, tmp_path: Path) -> None:
    source = Source.objects.filter(task__slug="fill").first()
    assert source is not None
    picture = images.open_image(source.image)
    names = []
    for number in range(3):
        name = tmp_path / f"{number}.png"
        picture.rotate(90 * number).save(name)
        names.append(str(name))

    said = call(
        "rerank", "--task", "fill", "--source", str(source.pk), *names, json=str(tmp_path / "o")
    )

    ranking = json.loads((tmp_path / "o").read_text())["ranking"]
    assert sorted(row["image"] for row in ranking) == names
    # Closer ones stand in the order of their hashes.
    scores = [round(row["score"], DECIMALS) for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(0.0, abs=1e-4)
    assert f"best: {ranking[0]['image']}" in said


def test_it_refuses_pictures_that_cannot_be_compared(project: Project, tmp_path: Path) -> None:
    source = Source.objects.filter(task__slug="fill").first()
    assert source is not None
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    images.open_image(source.image).save(one)
    images.open_image(source.image).resize((32, 32)).save(other)
    place = ["--task", "fill", "--source", str(source.pk)]

    with pytest.raises(CommandError, match="All pictures must have one size"):
        call("rerank", *place, str(one), str(other))
    with pytest.raises(CommandError, match="at least two pictures"):
        call("rerank", *place, str(one))
    with pytest.raises(CommandError, match="no task “fil”. Known tasks: fill"):
        call("rerank", "--task", "fil", "--source", "1", str(one))
    with pytest.raises(CommandError, match="no source '999999'"):
        call("rerank", "--task", "fill", "--source", "999999", str(one))


def test_it_names_a_snapshot_that_is_not_there(project: Project) -> None:
    snapshot = make_snapshot(project)

    with pytest.raises(CommandError, match=snapshot.content_hash[:12]):
        call("evaluate_reward", "--snapshot", "ffffffffffff")
