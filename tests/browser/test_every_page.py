"""Every page in light and dark: nothing that shuts people out, nothing that runs off the screen.

With ONELOOP_SHOTS=DIR each page is also kept as a picture, to be looked at.
"""

from __future__ import annotations

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import axe_playwright_python
import numpy as np
import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from PIL import Image as Pillow

from annotation import (
    exporting,
    feedback,
    judgments,
    members,
    queue,
    ratings,
    review,
    withdrawals,
)
from annotation.campaigns import Entry, add_sets
from annotation.judgments import Answer
from annotation.models import Assignment, Campaign, Dimension, Example, Judgment, Wording
from annotation.ratings import Scores
from generation import images, tokens
from generation.models import (
    Candidate,
    CandidateSet,
    Delivery,
    Endpoint,
    Policy,
    Task,
    default_project,
)
from modeling import gates, published, transitions
from modeling.models import Edit, Evaluation, LeaderboardLink, Ranking, RewardModel, Round, Study
from modeling.starter import world
from modeling.statistics import Interval
from modeling.transitions import State
from tests.annotation.factories import make_campaign, make_dimension, make_golds
from tests.factories import (
    make_plan,
    make_policy,
    make_run,
    make_source,
    make_task,
    make_user,
)
from tests.modeling.test_gates import comparison, reward_figures
from tests.modeling.test_insight import make_mistaken
from tests.modeling.test_lineage import make_learnt_policy
from tests.modeling.test_pages import make_child, make_evaluation, make_round

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(900),
]
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGES = {
    "home": "/",
    "choose": "/label/",
    "label": "/label/{turn}/",
    "label-pair": "/label/{pair}/",
    "label-rating": "/label/{rating}/",
    "label-practice": "/label/{practice}/",
    "feedback": "/label/{feedback}/feedback/",
    "empty": "/label/campaign/{done}/",
    "history": "/label/history/",
    "sources": "/sources/",
    "source-new": "/sources/new/",
    "campaigns": "/campaigns/",
    "campaign-new": "/campaigns/new/",
    "campaign-new-comparison": "/campaigns/new/?purpose=comparison",
    "campaign": "/campaigns/{campaign}/",
    "campaign-edit": "/campaigns/{campaign}/edit/",
    "campaign-preview": "/campaigns/{campaign}/preview/",
    "campaign-sets": "/campaigns/{campaign}/sets/",
    "campaign-members": "/campaigns/{campaign}/members/",
    "campaign-gold": "/campaigns/{campaign}/gold/",
    "campaign-gold-item": "/campaigns/{campaign}/gold/{item}/",
    "campaign-guide": "/campaigns/{campaign}/guide/",
    "quality": "/campaigns/{campaign}/quality/",
    "quality-person": "/campaigns/{campaign}/quality/people/{person}/",
    "quality-gold": "/campaigns/{campaign}/quality/gold/",
    "labels": "/campaigns/{campaign}/labels/",
    "review": "/campaigns/{campaign}/review/",
    "review-item": "/campaigns/{campaign}/review/{disputed}/",
    "join": "/join/{secret}/",
    "edit-new": "/edit/?source={source}",
    "edit": "/edit/{edit}/",
    "feedback-report": "/feedback/",
    "loop": "/loop/",
    "round": "/loop/{round}/",
    "round-step": "/loop/steps/{step}/",
    "round-report": "/loop/{promoted}/report/",
    "governance": "/governance/",
    "governance-wordings": "/governance/wordings/own-structure/",
    "governance-tags": "/governance/tags/?policy={rated}",
    "round-undo": "/loop/{promoted}/undo/",
    "leaderboard": "/leaderboard/",
    "sampling": "/sampling/",
    "studies": "/studies/",
    "study": "/studies/{study}/",
    "power": "/studies/power/",
    "policies": "/policies/",
    "policy": "/policies/{policy}/",
    "reward-model": "/reward-models/{reward}/",
    "lineage": "/lineage/policies/{learnt}/",
    "lineage-source": "/lineage/sources/{source}/",
    "lineage-person": "/lineage/people/{person}/",
    "projects": "/projects/",
    "project": "/projects/main/",
    "account": "/account/",
    "password": "/account/password/",
    "second-factor": "/account/second-factor/",
    "sessions": "/account/sessions/",
    "my-data": "/account/data/",
    "erase": "/people/{person}/erase/",
    "audit": "/audit/",
    "status": "/status/",
    "api": "/api/v1/docs/",
    "exports": "/exports/",
    "export": "/exports/{export}/",
    "webhooks": "/webhooks/",
    "webhook": "/webhooks/{endpoint}/",
    "not-found": "/label/999999/",
}
ADMIN = {
    "admin": "/admin/",
    "admin-list": "/admin/generation/source/",
    "admin-row": "/admin/auth/user/{person}/change/",
}
LOGGED_OUT = {"login": "/login/", "leaderboard-public": "/leaderboard/anybody/"}


def make_starter_set(task: Task, number: int) -> CandidateSet:
    """A scene of the starter world with candidates that differ a little."""
    rng = np.random.default_rng(number)
    example = world.sample_example(rng, "fill")
    source = make_source(
        task,
        image=images.store(Pillow.fromarray(example.image)),
        mask=images.store(Pillow.fromarray(example.mask)),
        prompt=example.prompt,
        tags={"style": ("ink", "oil")[number % 2]},
    )
    made = CandidateSet.objects.create(
        source=source, size=4, state=CandidateSet.State.READY, plan=make_plan(task)
    )
    policy = make_policy()
    for index in range(4):
        noisy = example.image.astype(float) + rng.normal(0, 6 + 9 * index, example.image.shape)
        picture = Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8))
        Candidate.objects.create(
            set=made,
            index=index,
            policy=policy,
            image=images.store(picture),
            seed=index,
            num_inference_steps=6,
            strength=1.0,
            guidance_scale=30.0,
            true_cfg_scale=1.0,
            width=64,
            height=64,
        )
    return made


CHECKED = gates.reward_gate(
    new=reward_figures(),
    last=reward_figures(),
    comparison=comparison(0.8, 0.9),
    excluded=[],
    newest=[Interval(0.8, 0.7, 0.87, 100), Interval(0.85, 0.77, 0.91, 100)],
).as_dict()


def make_course(policy: Policy) -> tuple[Round, Round]:
    """A round that failed in the middle, and one before it whose policy is active."""
    promoted = make_round(
        policy=policy,
        parent_policy=policy.parent,
        finished_at=timezone.now(),
        outcome="Promoted 'trained 1'",
    )
    promoted.steps.filter(name="promote").update(state="succeeded", result={"promoted": True})
    Policy.objects.filter(pk=policy.pk).update(state="active")
    round_ = make_round(policy=policy)
    transitions.record(round_, to=State.OPEN, reason="Started by hand.")
    for step in round_.steps.order_by("position")[:5]:
        failed = step.name == "train_policy"
        figure = CHECKED if step.name == "gate_reward" else {"figure": "500 sets"}
        step.state = "failed" if failed else "succeeded"
        step.error = "The disk is full: free 2 GB and run the step again." if failed else ""
        step.started_at = step.finished_at = timezone.now()
        step.result = figure
        step.save()
        transitions.record(round_, step=step.name, to=State.RUNNING)
        end = State.FAILED if failed else State.DONE
        transitions.record(round_, step=step.name, to=end, reason=step.error)
    return round_, promoted


def judge(user: User, campaign: Campaign, best: int, worst: int) -> Assignment:
    turn = queue.claim(user=user, campaign=campaign)
    assert turn is not None
    task = turn.set.source.task
    answers = {
        criterion.dimension.slug: Answer("picked", best, worst) if n else Answer("picked", 0, 3)
        for n, criterion in enumerate(task.criteria.select_related("dimension"))
    }
    judgments.record(assignment=turn, user=user, answers=answers, seconds_spent=6.5)
    return turn


def adapt_plan(task: Task, sets: list[CandidateSet]) -> None:
    """Two sets of the first version, the others of one that learnt."""
    old, new, *others = task.plans.order_by("version")
    CandidateSet.objects.filter(source__task=task).update(plan=new)
    CandidateSet.objects.filter(pk__in=[one.pk for one in sets[:2]]).update(plan=old)
    task.plans.filter(pk__in=[one.pk for one in others]).delete()
    weights = {"steps": [0.3, 0.7], "guidance_scale": [0.26, 0.74]}
    because = "adaptive: from 40 sets, close under starter reward"
    task.plans.filter(pk=new.pk).update(current=True, weights=weights, made_by=because)


@pytest.fixture
def site(db: None, tmp_path: Path) -> dict[str, Any]:
    """A project in the middle of its work; `chief` is a superuser who also labels."""
    chief = make_user("chief", is_staff=True, is_superuser=True, role="admin")
    people = [chief, make_user("anna"), make_user("ben")]
    task = make_task("paint", name="Fill", instruction="Judge the edited area only.")
    for name in ("Text alignment", "Consistency", "Structure", "Aesthetics"):
        dimension = make_dimension(f"own-{name.lower()}".replace(" ", "-"), task=task, name=name)
    sets = [make_starter_set(task, number) for number in range(12)]
    adapt_plan(task, sets)
    Wording.objects.create(
        dimension=Dimension.objects.get(slug="own-structure"),
        version=2,
        question="Which has the fewest broken shapes, and which the most?",
        query="Is the first image better in structure than the second?",
        guideline="Look at structure alone: count broken shapes.",
    )
    first = sets[0].candidates.select_related("image").order_by("index")[0]
    assert first.image is not None
    Example.objects.create(dimension=dimension, image=first.image, caption="clean edges")
    campaign = make_campaign(
        task=task,
        sets=sets[:9],
        name="Lanterns",
        overlap=3,
        guideline="Look at the **edited area** first.\n\n- edges\n- light",
    )
    for number in range(5):
        for place, user in enumerate(people):
            judge(user, campaign, best=(number + place) % 2, worst=3)
    make_golds(sets[8], explanation="The edge is clean.")
    disputed = review.disputed(campaign)[0].item
    turn = queue.claim(user=chief, campaign=campaign)
    assert turn is not None
    judgments.flag(assignment=turn, user=chief, reason="The mask is empty")

    done = make_campaign(task=task, sets=sets[9:10], name="Finished")
    judge(people[1], done, 0, 3)
    practice = make_campaign(task=task, sets=sets[10:12], name="Practice", practice_sets=2)
    for item in practice.items.all():
        make_golds(item.set, practice=True, explanation="Look at the edge.")
    shown = practice_turn(chief, practice)
    judgments.record(assignment=shown, user=chief, answers=answers_of(shown))
    pair = make_campaign(task=task, sets=sets[6:8], name="Old or new", purpose="comparison")
    pair.items.update(shown=[0, 2])
    rating = make_campaign(task=task, sets=sets[6:8], name="Usable?", purpose="rating")
    rating.items.update(shown=[1])

    parent = make_policy("starter base 1")
    child = make_child(parent, "trained 1")
    make_evaluation(child, [(0.5, 0.9), (0.4, 0.6)])
    round_, promoted = make_course(child)
    reward = RewardModel.objects.all()[0]
    Evaluation.objects.create(kind="reward", reward_model=reward, figures=reward_figures())
    Round.objects.filter(pk=promoted.pk).update(campaign=campaign, reward_model=reward)
    theirs = Policy.objects.create(name="Ideogram 3.0", kind=Policy.Kind.EXTERNAL)
    for index, policy in enumerate((parent, child, parent, theirs)):
        Candidate.objects.filter(set__in=sets, index=index).update(policy=policy)
    LeaderboardLink.objects.create(digest=sha256(b"anybody").hexdigest())
    study = Study.objects.create(name="Ours against theirs", question="Is it better?")
    records = published.from_path(Path(published.__file__).parent / "published/onereward.csv")
    published.import_figures(study, records)
    rated = make_campaign(task=task, sets=(), purpose="rating", may_be_empty=True)
    add_sets(rated, [Entry(one, (index,)) for one in sets[:8] for index in (0, 1)])
    for number in range(16):
        seen = queue.claim(user=people[1], campaign=rated)
        assert seen is not None
        asked = seen.set.source.task.dimensions.all()
        scores = Scores(number % 3 > 0, {one.slug: 2 + number % 4 for one in asked})
        ratings.rate(assignment=seen, user=people[1], scores=scores)
    reward = RewardModel.objects.create(name="second", location="x")
    make_mistaken(reward, tmp_path, sets[9], dimension, 0, 3)
    cell = {"accuracy": 0.78, "low": 0.71, "high": 0.84, "n": 160}
    for one in RewardModel.objects.all():
        figures = {"reward_accuracy": {"fill": {"structure": cell, "consistency": cell}}}
        Evaluation.objects.create(kind="reward", reward_model=one, figures=figures)
    tokens.make(user=chief, name="notebook", scopes=["read"])
    _, secret = members.invite(campaign=campaign, by=chief, uses=3)
    return {
        "turn": turn.pk,
        "pair": _claimed(chief, pair),
        "rating": _claimed(chief, rating),
        "practice": practice_turn(chief, practice).pk,
        "feedback": shown.pk,
        "done": done.pk,
        "campaign": campaign.pk,
        "item": campaign.items.order_by("pk")[0].pk,
        "person": people[1].pk,
        "disputed": disputed,
        "secret": secret,
        "round": round_.number,
        "step": round_.steps.get(name="train_policy").pk,
        "promoted": promoted.number,
        "rated": parent.pk,
        "study": study.pk,
        "policy": child.pk,
        "reward": reward.pk,
        "endpoint": make_endpoint(),
        "learnt": make_learnt(campaign, child).pk,
        "source": Judgment.objects.order_by("pk")[23].set.source_id,
        "edit": make_edit(sets[0]),
        "export": make_export(campaign, chief),
    }


def make_export(campaign: Campaign, user: User) -> int:
    """The second version of the same choice."""
    chosen = {"campaigns": [campaign.name]}
    for _ in range(2):
        row = exporting.order(project=campaign.project, by=user, selection=chosen)
        exporting.run(row)
    return row.pk


def make_edit(made: CandidateSet) -> int:
    """An edit whose pictures are made and ranked."""
    CandidateSet.objects.filter(pk=made.pk).update(run=make_run(state="succeeded"))
    reward = RewardModel.objects.all()[0]
    result: list[dict[str, Any]] = [
        {"index": index, "score": 1.5 - rank, "dimensions": {}, "std": {}, "flipped": {}}
        for rank, index in enumerate((2, 0, 1, 3))
    ]
    ranking = Ranking.objects.create(
        project=made.source.project,
        task=made.source.task,
        image=made.source.image,
        mask=made.source.mask,
        reward_model=reward,
        state="succeeded",
        result=result,
    )
    for user in range(7):
        for row in made.candidates.all()[: 1 + user % 3]:
            kind = ("accepted", "discarded", "edited")[(row.index + user // 3) % 3]
            report = f"{user}.{row.index}"
            feedback.record(candidate=row, kind=kind, user=f"u{user}", client_id=report, value=3)
    return Edit.objects.create(set=made, wanted=4, reward_model=reward, ranking=ranking).pk


def make_endpoint() -> int:
    """A webhook whose messages were delivered, wait for another attempt, and failed."""
    endpoint = Endpoint.objects.create(
        project_id=default_project(), url="https://example.org/hooks/oneloop", topics=["run"]
    )
    for event, state, code, error in [
        ("ping", "delivered", 204, ""),
        ("run.succeeded", "waiting", 503, "Answered with 503."),
        ("run.failed", "failed", None, "No answer: connection refused"),
    ]:
        ended = None if state == "waiting" else timezone.now()
        Delivery.objects.create(
            endpoint=endpoint,
            event=event,
            state=state,
            body=json.dumps({"event": event}),
            attempts=1,
            response_code=code,
            error=error,
            ended_at=ended,
        )
    return endpoint.pk


def make_learnt(campaign: Campaign, policy: Policy) -> Policy:
    """Three rounds of models on the campaign's labels; one of its sources is withdrawn."""
    for name, count in (("trained 2", 8), ("trained 3", 16), ("trained 4", 24)):
        policy = make_learnt_policy(policy, name, list(Judgment.objects.all()[:count]))
    source = Judgment.objects.order_by("pk")[23].set.source
    withdrawals.withdraw(user=make_user("max"), source=source, reason="the licence ended")
    return policy


def _claimed(user: User, campaign: Campaign) -> int:
    turn = queue.claim(user=user, campaign=campaign)
    assert turn is not None
    return turn.pk


def practice_turn(user: User, campaign: Campaign) -> Assignment:
    from annotation import practice

    turn = practice.next_practice(user=user, campaign=campaign)
    assert turn is not None
    return turn


def answers_of(turn: Assignment) -> dict[str, Answer]:
    criteria = turn.set.source.task.criteria.select_related("dimension")
    return {c.dimension.slug: Answer("picked", 0, 2) for c in criteria}


def barriers(page: Any) -> list[str]:
    """What axe calls serious or critical, with the first place of each."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(AXE.read_text())
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [
        f"{one['id']}: {one['help']} — {one['nodes'][0]['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than the window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def look(page: Any, name: str, scheme: str) -> None:
    if folder := os.environ.get("ONELOOP_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-{scheme}.png", full_page=True)


def log_in(page: Any, url: str) -> None:
    page.goto(f"{url}/login/")
    page.fill("[name=username]", "chief")
    page.fill("[name=password]", "secret")
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"{url}/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_open_to_everybody(
    browser: Any, live_server: Any, site: dict[str, Any], scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 720}, color_scheme=scheme, bypass_csp=True
    )
    found: dict[str, list[str]] = {}
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        for name, path in LOGGED_OUT.items():
            page.goto(live_server.url + path)
            found[name] = barriers(page)
            look(page, name, scheme)
        log_in(page, live_server.url)
        for name, path in PAGES.items():
            answer = page.goto(live_server.url + path.format(**site))
            assert answer.status == (404 if name == "not-found" else 200), name
            if re.match(r"label(-|$)", name):
                page.wait_for_selector("#label[data-ready]")
            look(page, name, scheme)
            found[name] = barriers(page)
            if (wider := sideways(page)) > 0:
                found[name].append(f"{wider} pixels wider than the window")
            if re.match("label$|label-pair|label-rating", name):
                page.keyboard.press("?")
                look(page, f"{name}-help", scheme)
                found[name] += barriers(page)
        found["script errors"] = errors
    finally:
        context.close()
    told = [f"{name}: {what}" for name, all_found in found.items() for what in all_found]
    assert not told, "\n".join(told)


def test_pages_hold_together_small_and_enlarged(
    browser: Any, live_server: Any, site: dict[str, Any]
) -> None:
    """A tablet upright, and 1280×720 at 200 % browser zoom (which is 640×360 at 2 pixels each).

    Nothing of a page is refused by its own Content-Security-Policy either.
    """
    found: dict[str, int] = {}
    refused: list[str] = []

    def hear(message: Any) -> None:
        if "Content Security Policy" in message.text:
            refused.append(f"{message.location}: {message.text}")

    for size, scale in (((820, 1180), 1), ((640, 360), 2)):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale
        )
        try:
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.on("console", hear)
            log_in(page, live_server.url)
            for name, path in (PAGES | ADMIN).items():
                page.goto(live_server.url + path.format(**site))
                if name in ADMIN:
                    continue  # Django's own
                look(page, name, f"{size[0]}")
                if (wider := sideways(page)) > 0:
                    found[f"{name} at {size[0]}"] = wider
        finally:
            context.close()
    assert found == {}
    assert refused == []


def test_the_keyboard_reaches_all_of_a_table_wider_than_its_frame(
    browser: Any, live_server: Any, site: dict[str, Any]
) -> None:
    context = browser.new_context(viewport={"width": 480, "height": 720}, bypass_csp=True)
    try:
        page = context.new_page()
        log_in(page, live_server.url)
        page.goto(live_server.url + PAGES["policies"].format(**site))
        frame = page.locator(".scroll").first
        frame.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.activeElement.scrollLeft > 0")
        # Where nothing is hidden there is nothing to stop at.
        page.set_viewport_size({"width": 1280, "height": 720})
        page.wait_for_function("!document.querySelector('.scroll').hasAttribute('tabindex')")
        page.set_viewport_size({"width": 480, "height": 720})
        page.wait_for_function("document.querySelector('.scroll').tabIndex === 0")
    finally:
        context.close()


def test_the_slider_uncovers_the_other_policys_picture(
    browser: Any, live_server: Any, site: dict[str, Any]
) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        log_in(page, live_server.url)
        page.goto(live_server.url + PAGES["policy"].format(**site))
        figure = page.locator("figure.swipe").first
        slider, over = figure.locator("input[type=range]"), figure.locator("img.over")
        seen = []
        for key in ("Home", "End"):
            slider.press(key)
            seen.append(over.evaluate("image => getComputedStyle(image).clipPath"))
        assert seen == ["inset(0px 0px 0px 0%)", "inset(0px 0px 0px 100%)"]
    finally:
        context.close()
