import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import datasets as hub
import pyarrow.parquet as pq
import pytest
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotation import datasets, judgments, preferences
from annotation.dataset_hash import EarlierHash
from annotation.datasets import DatasetError
from annotation.judgments import Answer
from annotation.models import Aggregation, Assignment, Campaign, Judgment, Rating
from annotation.portable import set_uid, turn_uid
from annotation.preferences import Preference
from annotation.pseudonyms import pseudonym
from generation import images
from modeling.reward.data import Snapshot, pairs_of
from tests.annotation.factories import claim, make_campaign, make_dimension, submit
from tests.factories import make_set, make_source, make_task, make_user


@pytest.fixture
def campaign(db: None) -> Campaign:
    """Two sets, each judged by two people: text uses the prompt, shape found no difference once."""
    task = make_task("paint", wording="image painting")
    make_dimension("text", task=task, uses_prompt=True)
    make_dimension("shape", task=task)
    sets = [make_set(make_source(task, split=split)) for split in ("train", "holdout")]
    campaign = make_campaign(task=task, sets=sets, overlap=2)
    for person in range(2):
        user = make_user()
        for number in range(2):
            turn = claim(user, campaign)
            shape = Answer("no_difference") if person == number == 0 else Answer("picked", 3, 1)
            submit(turn, {"text": Answer("picked", 0, 2), "shape": shape}, seconds_spent=5)
    return campaign


@pytest.fixture
def written(campaign: Campaign, tmp_path: Path) -> Path:
    directory = tmp_path / "dataset"
    directory.mkdir()
    datasets.write(directory, Judgment.objects.current())
    return directory


def test_it_writes_every_table_the_card_and_the_pictures(written: Path) -> None:
    card = datasets.verify(written)
    # 8 judgments, one of them without a difference: 7 × 5 pairs. Pictures: 2 sources, 8 candidates
    # and one mask, which both sources share.
    assert card["counts"] == {
        "sets": 2,
        "candidates": 8,
        "judgments": 8,
        "preferences": 35,
        "ties": 6,
        "ratings": 0,
        "annotators": 0,
        "images": 11,
    }
    task = card["taxonomy"]["tasks"]["paint"]
    assert (task["name"], task["wording"], task["needs_source"]) == (
        "Paint",
        "image painting",
        True,
    )
    assert task["criteria"]["shape"] == {"weight": 1.0, "order": 1, "required": True}
    assert card["taxonomy"]["dimensions"]["text"]["uses_prompt"] is True
    assert card["taxonomy"]["dimensions"]["shape"]["query"].startswith("Is the first image better")
    assert len(list((written / "images").glob("??/*.png"))) == 11


def test_it_keeps_what_found_no_difference(written: Path) -> None:
    rows = pq.read_table(written / "judgments.parquet").to_pylist()
    same = [row for row in rows if row["outcome"] == "no_difference"]
    assert [(row["dimension"], row["best"], row["worst"]) for row in same] == [
        ("shape", None, None)
    ]
    picked = next(row for row in rows if row["dimension"] == "text")
    assert (picked["best"], picked["worst"], picked["wording"], picked["seconds_spent"]) == (
        0,
        2,
        1,
        5.0,
    )
    assert sorted(picked["order"]) == [0, 1, 2, 3]


def test_it_ties_every_pair_of_what_found_no_difference(written: Path) -> None:
    ties = pq.read_table(written / "ties.parquet").to_pylist()
    assert len({(row["first"], row["second"]) for row in ties}) == 6
    same = [r for r in datasets.rows(written, "judgments") if r["outcome"] == "no_difference"]
    assert {(row["dimension"], row["weight"], row["split"]) for row in ties} == {
        ("shape", 0.5, same[0]["split"])
    }
    assert {row["judged_at"] for row in ties} == {same[0]["judged_at"]}
    assert {row["annotator"] for row in ties} == {same[0]["annotator"]}


def test_it_says_how_reliable_annotators_are_once_that_is_known(
    campaign: Campaign, written: Path, tmp_path: Path
) -> None:
    """Of five answers (four candidates or none) a right one in 0.6 is (0.6 - 0.2) / 0.8 = 0.5."""
    assert {row["reliability"] for row in datasets.rows(written, "preferences")} == {None}
    judgment = Judgment.objects.filter(outcome="picked")[0]
    person, dimension = judgment.assignment.annotator_id, judgment.dimension_id
    Aggregation.objects.create(
        campaign=campaign,
        reliability=[{"user": person, "dimension": dimension, "n": 2, "accuracy": 0.6}],
    )
    again = tmp_path / "again"
    datasets.write(again, Judgment.objects.current())
    mine = {
        row["reliability"]
        for row in datasets.rows(again, "preferences")
        if row["annotator"] == pseudonym(person) and row["dimension"] == judgment.dimension.slug
    }
    assert mine == {0.5}
    assert list(datasets.rows(again, "annotators")) == [
        {
            "annotator": pseudonym(person),
            "campaign": campaign.name,
            "dimension": judgment.dimension.slug,
            "n": 2,
            "accuracy": 0.6,
            "attentive": None,
        }
    ]
    assert datasets.verify(again)["content_hash"] != datasets.read_card(written)["content_hash"]


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A dataset as version 2 wrote it."""
    return Path(shutil.copytree(Path(__file__).parent / "dataset_v2", tmp_path / "second"))


def test_it_reads_a_dataset_of_version_2(second: Path) -> None:
    assert datasets.verify(second)["schema_version"] == 2
    snapshot = Snapshot(second)
    assert (len(snapshot.rows), len(snapshot.ties)) == (5, 6)
    assert [pair.key.partition(":")[0] for pair in pairs_of(snapshot, "train")] == ["1"] * 5
    rows = list(datasets.rows(second, "judgments"))
    assert [row["simulated"] for row in rows] == [False, False]


def test_it_reads_a_dataset_of_version_1(second: Path) -> None:
    """Without ties, reliability and times, and with the hash of the rows that it had."""
    (second / "ties.parquet").unlink()
    path = second / "preferences.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["reliability", "judged_at"]), path)
    card = json.loads((second / "card.json").read_text())
    earlier = EarlierHash()
    for name in ("sets", "candidates", "judgments", "preferences"):
        for batch in pq.read_table(second / f"{name}.parquet").to_batches():
            earlier.add(name, batch)
    del card["counts"]["ties"]
    card |= {"schema_version": 1, "content_hash": earlier.hex(card["taxonomy"], 1)}
    (second / "card.json").write_text(json.dumps(card))
    assert datasets.verify(second)["schema_version"] == 1
    assert len(Snapshot(second).rows) == 5
    assert Snapshot(second).ties == []


def test_it_names_no_annotator(campaign: Campaign, written: Path) -> None:
    rows = pq.read_table(written / "judgments.parquet").to_pylist()
    preferences = pq.read_table(written / "preferences.parquet").to_pylist()
    people = {row["annotator"] for row in rows}
    assert len(people) == 2
    assert {row["annotator"] for row in preferences} == people
    users = {t.annotator for item in campaign.items.all() for t in item.assignments.all()}
    assert people == {pseudonym(user.pk) for user in users}
    everything = b"".join(path.read_bytes() for path in written.glob("*.*"))
    assert not any(user.username.encode() in everything for user in users)


def test_it_refers_to_pictures_that_are_there(written: Path) -> None:
    for row in pq.read_table(written / "preferences.parquet").to_pylist():
        for column in ("source", "mask", "chosen", "rejected"):
            sha256 = row[column]
            assert (written / "images" / sha256[:2] / f"{sha256}.png").is_file()
    splits = pq.read_table(written / "preferences.parquet")["split"].to_pylist()
    assert set(splits) == {"train", "holdout"}


def test_it_hashes_content_whatever_the_time_and_the_order(written: Path, tmp_path: Path) -> None:
    Judgment.objects.update(created_at=timezone.now())
    again = datasets.write(tmp_path / "again", Judgment.objects.current().order_by("-pk"))
    assert again.content_hash == datasets.read_card(written)["content_hash"]
    fewer = datasets.write(tmp_path / "fewer", Judgment.objects.filter(outcome="picked"))
    assert fewer.content_hash != again.content_hash


def test_it_hashes_who_answered_together_and_not_who_they_are(
    campaign: Campaign, written: Path, tmp_path: Path
) -> None:
    before = datasets.read_card(written)["content_hash"]
    salted = datasets.write(tmp_path / "salted", Judgment.objects.current(), salt="pepper")
    assert salted.content_hash == before
    names = [
        {row["annotator"] for row in datasets.rows(directory, "judgments")}
        for directory in (written, tmp_path / "salted")
    ]
    assert (len(names[0]), len(names[1]), names[0] & names[1]) == (2, 2, set())
    turns = Assignment.objects.order_by("item", "pk")
    one, other = turns[0], turns[1]
    assert one.item == other.item
    # The same answers, but a third person gave one of them.
    Assignment.objects.filter(pk=one.pk).update(annotator=make_user())
    assert datasets.write(tmp_path / "third", Judgment.objects.current()).content_hash != before
    for path in (tmp_path / "salted").rglob("*"):
        assert path.is_dir() or b"pepper" not in path.read_bytes()


def test_it_names_sets_and_turns_for_good(campaign: Campaign, written: Path) -> None:
    turns = {turn_uid(turn.pk, None): set_uid(turn.set_id, None) for turn in all_turns(campaign)}
    rows = list(datasets.rows(written, "judgments"))
    assert {row["assignment"]: row["set"] for row in rows} == turns
    assert {row["set"] for row in datasets.rows(written, "candidates")} == set(turns.values())


def all_turns(campaign: Campaign) -> list[Assignment]:
    return list(Assignment.objects.filter(item__campaign=campaign))


def pairs(directory: Path, table: str, *names: str) -> list[tuple[object, ...]]:
    rows = datasets.rows(directory, table)
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_its_pairs_are_those_that_judgments_imply(campaign: Campaign, written: Path) -> None:
    """Made in columns they are the same as one by one."""
    names = [field.name for field in fields(Preference) if field.name not in ("set", "annotator")]
    derived = preferences.derive(Judgment.objects.current())
    expected = sorted(tuple(getattr(one, name) for name in names) for one in derived)
    assert pairs(written, "preferences", *names) == expected


def test_it_says_nothing_about_candidates_that_were_not_shown(
    campaign: Campaign, tmp_path: Path
) -> None:
    """A comparison may show two of a set of four."""
    judgments = Judgment.objects.filter(dimension__slug="text")[:1]
    one = judgments[0]
    Assignment.objects.filter(pk=one.assignment_id).update(order=[2, 0])
    chosen = Judgment.objects.filter(pk=one.pk)
    assert datasets.write(tmp_path / "out", chosen).counts["preferences"] == 1
    assert [pair.relation for pair in preferences.derive(chosen)] == ["direct"]


def test_it_says_where_answers_come_from(campaign: Campaign, tmp_path: Path) -> None:
    Campaign.objects.update(simulated=True)
    Assignment.objects.filter(pk=all_turns(campaign)[0].pk).update(kind="review")
    datasets.write(tmp_path / "out", Judgment.objects.current())
    rows = pq.read_table(tmp_path / "out" / "judgments.parquet").to_pylist()
    assert {row["origin"] for row in rows} == {"simulated"}
    assert sorted(row["kind"] for row in rows) == ["review"] * 2 + ["work"] * 6
    card = datasets.read_card(tmp_path / "out")
    assert card["taxonomy"]["campaigns"] == {
        campaign.name: {
            "purpose": "preference",
            "origin": "simulated",
            "overlap": 2,
            "guideline": "",
            "tasks": ["paint"],
            "dimensions": [],
        }
    }
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "8 of 8 answers come from simulated annotators" in readme
    assert "2 answers are decisions of reviewers" in readme


def test_it_writes_ratings(campaign: Campaign, tmp_path: Path) -> None:
    turn = all_turns(campaign)[0]
    text = Judgment.objects.filter(dimension__slug="text")[0]
    for about, wording, value in ((None, None, 1), (text.dimension, text.wording, 4)):
        Rating.objects.create(
            assignment=turn,
            set=turn.set,
            candidate=turn.set.candidates.get(index=2),
            dimension=about,
            wording=wording,
            value=value,
        )
    out = tmp_path / "out"
    counts = datasets.write(out, Judgment.objects.none(), ratings=Rating.objects.counted()).counts
    assert (counts["ratings"], counts["judgments"], counts["sets"]) == (2, 0, 1)
    datasets.verify(out)
    rows = list(datasets.rows(out, "ratings"))
    assert [(row["candidate"], row["dimension"], row["value"]) for row in rows] == [
        (2, None, 1),
        (2, "text", 4),
    ]
    assert {row["assignment"] for row in rows} == {turn_uid(turn.pk, None)}
    assert rows[0]["order"] == turn.order


def test_it_hashes_the_wording_of_the_questions(written: Path, tmp_path: Path) -> None:
    before = datasets.read_card(written)["content_hash"]
    dimension = Judgment.objects.all()[0].dimension
    dimension.wordings.create(version=2, question="Other?", query="Is the first other?")
    assert datasets.write(tmp_path / "b", Judgment.objects.current()).content_hash != before


def test_it_loads_with_the_hub_s_own_loader(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub.config, "HF_HUB_OFFLINE", True)
    cache = str(tmp_path / "cache")
    preferences = hub.load_dataset(str(written), cache_dir=cache)["train"]
    assert len(preferences) == 35
    assert set(preferences.unique("relation")) == {"direct", "implied"}
    rows = hub.load_dataset(str(written), "judgments", split="train", cache_dir=cache)
    assert len(rows) == 8


@pytest.mark.folder
def test_it_links_pictures_of_the_same_disk_and_leaves_the_store_alone(written: Path) -> None:
    image = Judgment.objects.all()[0].set.source.image
    name = f"{image.sha256[:2]}/{image.sha256}.png"
    assert os.path.samefile(written / "images" / name, images.local_path(image))


def test_it_writes_withdrawn_judgments_only_when_asked(campaign: Campaign, tmp_path: Path) -> None:
    user = campaign.items.all()[0].assignments.all()[0].annotator
    judgments.undo(user=user, campaign=campaign)
    assert datasets.write(tmp_path / "now", Judgment.objects.current()).counts["judgments"] == 6
    assert datasets.write(tmp_path / "ever", Judgment.objects.all()).counts["judgments"] == 8


def test_it_refuses_a_directory_that_holds_files(campaign: Campaign, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DatasetError, match="already holds files"):
        datasets.write(tmp_path, Judgment.objects.current())
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["mine.txt"]


def test_it_leaves_nothing_behind_when_a_picture_is_gone(
    campaign: Campaign, tmp_path: Path
) -> None:
    gone = Judgment.objects.all()[0].set.source.image
    default_storage.delete(f"images/{gone.storage_key}")
    with pytest.raises(DatasetError, match="is gone from the store"):
        datasets.write(tmp_path / "out" / "dataset", Judgment.objects.current())
    assert list((tmp_path / "out").iterdir()) == []


class TestVerify:
    def test_it_finds_a_changed_row(self, written: Path) -> None:
        table = pq.read_table(written / "preferences.parquet")
        swapped = table.rename_columns(
            [{"chosen": "rejected", "rejected": "chosen"}.get(n, n) for n in table.column_names]
        ).select(table.column_names)
        pq.write_table(swapped.cast(table.schema), written / "preferences.parquet")
        with pytest.raises(DatasetError, match="content hash differs"):
            datasets.verify(written)

    def test_it_finds_a_missing_row_and_a_damaged_file(self, written: Path) -> None:
        table = pq.read_table(written / "judgments.parquet")
        pq.write_table(table.slice(1), written / "judgments.parquet")
        with pytest.raises(DatasetError, match="7 rows in judgments.parquet and its card says 8"):
            datasets.verify(written)
        (written / "judgments.parquet").write_bytes(b"PAR1 nonsense")
        with pytest.raises(DatasetError, match="is damaged"):
            datasets.verify(written)

    def test_it_finds_a_missing_and_a_changed_picture(self, written: Path) -> None:
        path = next((written / "images").glob("??/*.png"))
        path.unlink()
        with pytest.raises(DatasetError, match="is missing"):
            datasets.verify(written)
        path.write_bytes(b"something else")
        with pytest.raises(DatasetError, match="is not the one its name says"):
            datasets.verify(written)

    def test_it_refuses_what_is_no_dataset_or_of_another_version(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="holds no card.json"):
            datasets.read_card(tmp_path)
        card = {"schema": "oneloop-dataset", "schema_version": 99}
        (tmp_path / "card.json").write_text(json.dumps(card))
        with pytest.raises(DatasetError, match="schema version 99"):
            datasets.read_card(tmp_path)


class TestExportDataset:
    def test_it_writes_the_chosen_campaign(self, campaign: Campaign, tmp_path: Path) -> None:
        submit(claim(make_user(), make_campaign()))
        out, figures = tmp_path / "out", tmp_path / "figures.json"
        call_command("export_dataset", out=str(out), campaign=[campaign.name], json=str(figures))
        card = datasets.verify(out)
        assert card["counts"]["judgments"] == 8
        assert json.loads(figures.read_text())["content_hash"] == card["content_hash"]

    def test_it_writes_nothing_on_a_dry_run(self, campaign: Campaign, tmp_path: Path) -> None:
        call_command("export_dataset", out=str(tmp_path / "out"), dry_run=True)
        assert not (tmp_path / "out").exists()

    def test_it_names_what_is_wrong(self, db: None, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match="no judgment to export"):
            call_command("export_dataset", out=str(tmp_path / "out"))
        with pytest.raises(CommandError, match="There is no campaign “x”"):
            call_command("export_dataset", out=str(tmp_path / "out"), campaign=["x"])
