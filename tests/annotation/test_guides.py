import io
from html.parser import HTMLParser
from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from annotation import guides
from annotation.models import Dimension, Example
from generation.models import Role
from modeling.starter.taxonomy import DIMENSIONS
from tests.annotation.factories import make_campaign, make_dimension, make_judged_task
from tests.factories import make_image, make_picture, make_user

OWN = f"/images/{'a' * 64}.png"


class TestRender:
    def test_it_renders_markdown(self) -> None:
        html = guides.render(
            "# Look\n\n- **Better:** whole\n- *Worse*: broken\n\n| a | b |\n|-|-|\n| 1 | 2 |"
        )
        assert "<h3>Look</h3>" in html
        assert "<li><strong>Better:</strong> whole</li>" in html
        assert "<td>1</td>" in html
        assert guides.render("  ") == ""

    @pytest.mark.parametrize(
        "text",
        [
            "<script>alert(1)</script>",
            '<img src=x onerror="alert(1)">',
            "<svg/onload=alert(1)>",
            "[x](javascript:alert(1))",
            "[x](JaVaScRiPt:alert(1))",
            "[x](java&#115;cript:alert(1))",
            "[x](data:text/html;base64,PHNjcmlwdD4=)",
            "[x](vbscript:msgbox(1))",
            '[x](https://a.b "onmouseover=alert(1)")',
            "![x](javascript:alert(1))",
            '![x](https://evil.example/p.png" onerror="alert(1))',
            "<javascript:alert(1)>",
            "`<script>alert(1)</script>`",
            "<iframe src=//evil.example></iframe>",
            "<style>*{display:none}</style>",
            "<a href='javascript:alert(1)'>x</a>",
            "[x]: javascript:alert(1)\n\n[x]",
        ],
    )
    def test_it_lets_nothing_run(self, text: str) -> None:
        seen: list[tuple[str, dict[str, str | None]]] = []

        class Reader(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                seen.append((tag, dict(attrs)))

        Reader().feed(guides.render(text))
        assert {tag for tag, _ in seen} <= {"p", "a", "code", "h3", "pre", "ul", "li"}
        for _, attributes in seen:
            assert set(attributes) <= {"href", "title", "target", "rel"}
            assert (attributes.get("href") or "https:").startswith(("https:", "http:", "mailto:"))

    def test_it_opens_links_in_a_new_tab_that_knows_nothing_of_this_one(self) -> None:
        html = guides.render("[rules](https://example.org/rules)")
        assert 'href="https://example.org/rules"' in html
        assert 'target="_blank"' in html
        assert 'rel="noopener noreferrer"' in html

    def test_it_shows_pictures_of_this_site_only(self) -> None:
        assert f'<img src="{OWN}" alt="a seam">' in guides.render(f"![a seam]({OWN})")
        assert f'src="{OWN}?size=thumb"' in guides.render(f"![x]({OWN}?size=thumb)")
        for address in (
            "https://evil.example/a.png",
            f"//evil.example{OWN}",
            f"https://evil.example{OWN}",
            f"{OWN}/../../logout/",
            "/logout/",
        ):
            html = guides.render(f"![a seam]({address})")
            assert "<img" not in html
            assert "a seam" in html

    def test_it_shows_raw_html_as_text(self) -> None:
        assert "&lt;b&gt;" in guides.render("<b>bold</b>")


@pytest.mark.django_db
class TestGuide:
    def test_it_shows_each_question_with_guide_and_examples(self, client: Client) -> None:
        task = make_judged_task(0, name="Repaint")
        dimension = make_dimension(task=task)
        dimension.wordings.create(
            version=2, question="Which glows?", query="?", guideline="Look **close**."
        )
        good = Example.objects.create(dimension=dimension, image=make_image(), caption="it glows")
        bad = Example.objects.create(dimension=dimension, image=make_image(), good=False)
        campaign = make_campaign(task=task, guideline="Take *care*.")
        client.force_login(make_user())
        response = client.get(f"/campaigns/{campaign.pk}/guide/")
        text = response.content.decode()
        for part in ("Repaint", "Which glows?", "<strong>close</strong>", "<em>care</em>"):
            assert part in text
        assert "it glows" in text
        assert text.index(good.image.sha256) < text.index(bad.image.sha256)
        [(found, [question])] = guides.by_task(campaign)
        assert (found, question.good, question.bad) == (task, [good], [bad])
        # Who only judges sees no tabs of the managers' pages.
        assert f"/campaigns/{campaign.pk}/members/" not in text

    def test_it_is_for_those_who_judge_and_those_who_run_it(self, client: Client) -> None:
        campaign = make_campaign()
        url = f"/campaigns/{campaign.pk}/guide/"
        for user, status in (
            (make_user(role=Role.MANAGER), 200),
            (make_user(role=Role.ANNOTATOR), 200),
            (make_user(role=Role.VIEWER), 403),
            (make_user(role=None), 404),
        ):
            client.force_login(user)
            assert client.get(url).status_code == status
        campaign.members.add(make_user())
        client.force_login(make_user())
        assert client.get(url).status_code == 403

    def test_the_labelling_page_renders_it_too(self, client: Client) -> None:
        campaign = make_campaign(guideline="Take *care*.")
        client.force_login(make_user())
        text = client.get(f"/label/campaign/{campaign.pk}/", follow=True).content.decode()
        assert "<em>care</em>" in text

    def test_the_seeded_dimensions_have_guides_of_several_lines(self) -> None:
        for dimension in Dimension.objects.filter(slug__in=DIMENSIONS):
            lines = [line for line in dimension.wording.guideline.splitlines() if line]
            assert 3 <= len(lines) <= 6
            assert "<li>" in guides.render(dimension.wording.guideline)


def migration() -> Any:
    return import_module("modeling.migrations.0003_write_longer_guides")


@pytest.mark.django_db
class TestMigration:
    """What happens on a site that was seeded with the short guides."""

    def run(self) -> None:
        migration().forwards(apps, None)

    def test_it_adds_a_version_where_the_seed_s_words_stand(self) -> None:
        before = migration().BEFORE
        assert set(before) == set(DIMENSIONS)
        structure = Dimension.objects.get(slug="structure")
        structure.wordings.update(guideline=before["structure"])
        edited = Dimension.objects.get(slug="consistency")
        edited.wordings.update(guideline="Our own words.")
        self.run()
        self.run()
        old, new = structure.wordings.order_by("version")
        assert (old.guideline, new.guideline) == (
            before["structure"],
            DIMENSIONS["structure"]["guideline"],
        )
        # The reward model is trained on these.
        assert (new.question, new.query) == (old.question, old.query)
        assert edited.wordings.get().guideline == "Our own words."


@pytest.mark.django_db
class TestAdmin:
    @pytest.fixture
    def root(self, client: Client) -> Client:
        user: User = make_user(is_staff=True, is_superuser=True)
        client.force_login(user)
        return client

    def data(self, dimension: Dimension, upload: SimpleUploadedFile) -> dict[str, object]:
        empty = {
            f"{prefix}-{part}_FORMS": "0"
            for prefix in ("criteria", "wordings", "examples")
            for part in ("TOTAL", "INITIAL")
        }
        wording = dimension.wording
        return empty | {
            "name": dimension.name,
            "slug": dimension.slug,
            "active": "on",
            "question": wording.question,
            "query": wording.query,
            "guideline": wording.guideline,
            "examples-TOTAL_FORMS": "1",
            "examples-0-picture": upload,
            "examples-0-caption": "broken",
            "examples-0-order": "0",
        }

    def test_it_takes_an_example_picture(self, root: Client) -> None:
        dimension = make_dimension()
        file = io.BytesIO()
        make_picture().save(file, "JPEG")
        upload = SimpleUploadedFile("a.jpg", file.getvalue())
        url = f"/admin/annotation/dimension/{dimension.pk}/change/"
        response = root.post(url, self.data(dimension, upload))
        assert response.status_code == 302, response.context["errors"]
        example = dimension.examples.get()
        assert (example.caption, example.good, example.image.format) == ("broken", False, "png")
        assert example.image.sha256 in root.get(url).content.decode()

    def test_it_refuses_what_is_no_picture(self, root: Client) -> None:
        dimension = make_dimension()
        upload = SimpleUploadedFile("a.png", b"<svg onload=alert(1)>")
        url = f"/admin/annotation/dimension/{dimension.pk}/change/"
        response = root.post(url, self.data(dimension, upload))
        assert "is an SVG drawing" in response.content.decode().replace("a.png ", "")
        assert not dimension.examples.exists()
