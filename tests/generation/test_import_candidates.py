import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotation import comparisons, contents, withdrawals
from annotation.campaigns import Entry, open_campaign
from annotation.models import Campaign
from generation.models import Candidate, CandidateSet, Policy, Source, Task, default_project
from tests.annotation.factories import make_judged_task
from tests.factories import make_picture, make_policy, make_set, make_source, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def task() -> Task:
    return make_judged_task(1)


@pytest.fixture
def cat(task: Task) -> Source:
    return make_source(task, external_id="cat.jpg")


@pytest.fixture
def dog(task: Task) -> Source:
    return make_source(task, external_id="dog")


def outputs(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        make_picture(900 + number).save(folder / name)
    return folder


def test_it_finds_each_source_by_the_files_name(tmp_path: Path, cat: Source, dog: Source) -> None:
    third = make_source(cat.task)
    outputs(tmp_path, "cat.png", "dog_1.webp", "dog_2.png", f"source-{third.pk}.png")

    call_command("import_candidates", tmp_path, system="Ideogram")

    policy = Policy.objects.get(name="Ideogram")
    assert policy.kind == Policy.Kind.EXTERNAL
    sizes = dict(CandidateSet.objects.values_list("source", "size"))
    assert sizes == {cat.pk: 1, dog.pk: 2, third.pk: 1}
    one = Candidate.objects.get(set__source=cat)
    assert (one.seed, one.num_inference_steps, one.true_cfg_scale) == (None, None, None)
    assert one.versions == {"imported_from": "cat.png"}


def test_it_changes_nothing_when_run_again(
    tmp_path: Path, cat: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(tmp_path, "cat.png")
    call_command("import_candidates", tmp_path, system="Ideogram")
    outputs(tmp_path, "cat.png", "cat_2.png")
    call_command("import_candidates", tmp_path, system="Ideogram")
    assert Candidate.objects.count() == 2
    assert "1 new, 1 there already, 0 refused" in capsys.readouterr().out


def test_it_says_why_a_file_was_refused(
    tmp_path: Path, cat: Source, dog: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(tmp_path, "cat.png", "bird.png")
    make_picture(5, size=(128, 64)).save(tmp_path / "dog.png")
    (tmp_path / "cat_2.png").write_bytes(b"no picture")
    report = tmp_path / "report.json"

    call_command("import_candidates", tmp_path, system="Ideogram", json=str(report))

    refused = {row["row"]: row["reason"] for row in json.loads(report.read_text())["refused"]}
    assert set(refused) == {"bird.png", "dog.png", "cat_2.png"}
    assert "No source is called “bird”" in refused["bird.png"]
    assert "128 × 64" in refused["dog.png"]
    assert "1 new" in capsys.readouterr().out
    assert Candidate.objects.count() == 1


def test_it_stores_nothing_in_a_dry_run(
    tmp_path: Path, cat: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs(tmp_path, "cat.png")
    call_command("import_candidates", tmp_path, system="Ideogram", dry_run=True)
    assert "1 would be new" in capsys.readouterr().out
    assert not Policy.objects.exists()
    assert not Candidate.objects.exists()


def test_it_reads_which_source_is_meant_from_a_table(
    tmp_path: Path, cat: Source, dog: Source
) -> None:
    outputs(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "a.png", "source": "dog", "latency_ms": 8200},
        {"file_name": "b.png", "source": cat.pk, "prompt": "a red hat"},
        {"file_name": "gone.png", "source": "dog"},
    ]
    table = tmp_path / "outputs.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows))

    call_command("import_candidates", table, system="Photoshop")

    assert Candidate.objects.get(set__source=dog).latency_ms == 8200
    assert Candidate.objects.get(set__source=cat).prompt == "a red hat"
    assert Candidate.objects.count() == 2


def test_it_asks_for_the_task_where_sources_share_an_id(tmp_path: Path, cat: Source) -> None:
    other = make_source(make_judged_task(1), external_id="cat.jpg")
    outputs(tmp_path, "cat.png")
    with pytest.raises(CommandError, match="No picture could be taken"):
        call_command("import_candidates", tmp_path, system="Ideogram")
    call_command("import_candidates", tmp_path, system="Ideogram", task=other.task.slug)
    assert Candidate.objects.get().set.source == other


def test_it_leaves_the_name_of_a_policy_to_the_policy(tmp_path: Path, cat: Source) -> None:
    make_policy("ours")
    outputs(tmp_path, "cat.png")
    with pytest.raises(CommandError, match="a policy with weights"):
        call_command("import_candidates", tmp_path, system="ours")


def test_its_pictures_are_compared_and_rated_but_not_ranked_alone(
    tmp_path: Path, task: Task, cat: Source
) -> None:
    ours = make_policy("ours")
    mine = make_set(cat, policy=ours, size=2)
    outputs(tmp_path, "cat.png")
    call_command("import_candidates", tmp_path, system="Ideogram")
    theirs = Policy.objects.get(name="Ideogram")

    pairs = comparisons.pair_up(a=ours, b=theirs, tasks=[task], project=default_project())
    assert [one.policy for one in pairs[0].set.candidates.order_by("index")] == [ours, theirs]

    def campaign(purpose: str) -> Campaign:
        return open_campaign(
            name=purpose, sets=(), tasks=[task], purpose=purpose, may_be_empty=True
        )

    rated = list(contents.entries_for(campaign("rating"), policies=[theirs]))
    alone = Candidate.objects.get(policy=theirs, set__size=1)
    assert rated == [Entry(alone.set, (0,))]
    assert list(contents.entries_for(campaign("preference"))) == [mine]


def test_a_withdrawn_source_takes_no_pictures(tmp_path: Path, cat: Source) -> None:
    withdrawals.withdraw(source=cat, reason="the owner asked", user=make_user())
    outputs(tmp_path, "cat.png")
    with pytest.raises(CommandError, match="No picture could be taken"):
        call_command("import_candidates", tmp_path, system="Ideogram")
    assert not Candidate.objects.exists()
