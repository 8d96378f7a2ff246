import hashlib
import re
import threading
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.utils import timezone

from annotation import members
from annotation.campaigns import admits
from annotation.errors import Refused
from annotation.models import Campaign, Invitation
from generation.models import Membership, Role
from tests.annotation.factories import claim, make_campaign, submit
from tests.factories import make_user

pytestmark = pytest.mark.django_db
PASSWORD = "correct-horse-7"


@pytest.fixture
def boss() -> User:
    return make_user("boss", role=Role.MANAGER)


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign(name="Spring")


def invite(campaign: Campaign, boss: User) -> tuple[Invitation, str]:
    invitation, secret = members.invite(campaign=campaign, by=boss)
    return invitation, f"/join/{secret}/"


def account(username: str = "newcomer", password: str = PASSWORD) -> dict[str, str]:
    return {"username": username, "password1": password, "password2": password}


class TestLink:
    def test_it_is_shown_once_and_only_its_digest_is_kept(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        client.force_login(boss)
        url = f"/campaigns/{campaign.pk}/members/"
        data = {"do": "invite", "uses": 3, "days": 2, "note": "night shift"}
        text = client.post(url, data).content.decode()
        found = re.search(r"http://testserver/join/([\w-]+)/", text)
        assert found is not None
        stored = Invitation.objects.get()
        assert stored.digest == hashlib.sha256(found[1].encode()).hexdigest()
        assert (stored.uses_left, stored.note, stored.created_by) == (3, "night shift", boss)
        again = client.get(url).content.decode()
        assert found[1] not in again
        assert stored.digest not in again
        assert "night shift" in again

    def test_it_refuses_a_link_without_uses_or_end(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        client.force_login(boss)
        for data in ({"uses": 0, "days": 2}, {"uses": 1, "days": 1000}, {"uses": "", "days": ""}):
            response = client.post(f"/campaigns/{campaign.pk}/members/", {"do": "invite"} | data)
            assert response.status_code == 422
        assert not Invitation.objects.exists()
        with pytest.raises(Refused, match="at least one use"):
            members.invite(campaign=campaign, by=boss, uses=0)

    def test_it_is_taken_back(self, client: Client, boss: User, campaign: Campaign) -> None:
        invitation, url = invite(campaign, boss)
        client.force_login(boss)
        said = {"do": "revoke", "invitation": invitation.pk}
        client.post(f"/campaigns/{campaign.pk}/members/", said)
        invitation.refresh_from_db()
        assert members.state_of(invitation) == "revoked"
        client.logout()
        response = client.post(url, account())
        assert response.status_code == 410
        assert "taken back" in response.content.decode()
        assert not User.objects.filter(username="newcomer").exists()

    def test_only_managers_make_and_take_back_links(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        invitation, _ = invite(campaign, boss)
        client.force_login(make_user(role=Role.ANNOTATOR))
        for data in ({"do": "invite", "uses": 1, "days": 1}, {"do": "revoke", "invitation": 1}):
            response = client.post(f"/campaigns/{campaign.pk}/members/", data)
            assert response.status_code == 403
        assert list(Invitation.objects.all()) == [invitation]


class TestJoin:
    def test_a_stranger_sees_who_invites_to_what(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        _, url = invite(campaign, boss)
        text = client.get(url).content.decode()
        for part in ("Spring", "boss", campaign.project.name, "Make an account"):
            assert part in text

    def test_it_makes_an_account_that_may_judge(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        campaign.members.add(boss)
        invitation, url = invite(campaign, boss)
        response = client.post(url, account())
        user = User.objects.get(username="newcomer")
        assert user.check_password(PASSWORD)
        assert (user.is_staff, user.is_superuser) == (False, False)
        assert Membership.objects.get(user=user).role == Role.ANNOTATOR
        assert user in campaign.members.all()
        assert admits(campaign, user)
        invitation.refresh_from_db()
        assert invitation.uses_left == 0
        assert response.headers["Location"] == f"/label/campaign/{campaign.pk}/"
        assert client.get(response.headers["Location"]).status_code == 302
        claim(user, campaign)

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (account(password="12345"), "too short"),
            (account(password="password"), "too common"),
            (account(username="boss"), "called that already"),
            (account() | {"password2": "other-horse-7"}, "match"),
        ],
    )
    def test_it_makes_no_account_that_is_not_right(
        self, client: Client, boss: User, campaign: Campaign, data: dict[str, str], says: str
    ) -> None:
        invitation, url = invite(campaign, boss)
        response = client.post(url, data)
        assert response.status_code == 422
        assert says in response.content.decode()
        invitation.refresh_from_db()
        assert (invitation.uses_left, User.objects.count()) == (1, 1)

    def test_somebody_logged_in_joins_with_one_click(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        _, url = invite(campaign, boss)
        stranger = make_user(role=None)
        client.force_login(stranger)
        assert "Make an account" not in client.get(url).content.decode()
        assert not Membership.objects.filter(user=stranger).exists()
        client.post(url)
        assert Membership.objects.get(user=stranger).role == Role.ANNOTATOR
        # The campaign is open to the whole project; a list of one would shut the others out.
        assert not campaign.members.exists()
        assert admits(campaign, stranger)
        assert admits(campaign, make_user())

    def test_it_never_lowers_a_role_and_raises_a_viewer_s(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        campaign.groups.add(Group.objects.create(name="night shift"))
        for role, after in ((Role.REVIEWER, Role.REVIEWER), (Role.VIEWER, Role.ANNOTATOR)):
            user = make_user(role=role)
            invitation, url = invite(campaign, boss)
            client.force_login(user)
            client.post(url)
            assert Membership.objects.get(user=user).role == after
            assert user in campaign.members.all()
            invitation.refresh_from_db()
            assert invitation.uses_left == 0

    def test_a_member_spends_no_use(self, client: Client, boss: User, campaign: Campaign) -> None:
        invitation, url = invite(campaign, boss)
        client.force_login(make_user())
        assert client.post(url).status_code == 302
        invitation.refresh_from_db()
        assert invitation.uses_left == 1

    def test_it_says_that_a_link_is_used_up_expired_or_unknown(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        _, used = invite(campaign, boss)
        client.post(used, account())
        client.logout()
        late, expired = invite(campaign, boss)
        soon = timezone.now() - timedelta(days=3)
        Invitation.objects.filter(pk=late.pk).update(created_at=soon)
        Invitation.objects.filter(pk=late.pk).update(expires_at=soon + timedelta(days=1))
        for url, status, says in (
            (used, 410, "used as often as it may be"),
            (expired, 410, "has expired"),
            ("/join/nothing/", 404, "no such invitation"),
        ):
            for response in (client.get(url), client.post(url, account("second"))):
                assert response.status_code == status
                assert says in response.content.decode()
        assert not User.objects.filter(username="second").exists()

    @pytest.mark.django_db(transaction=True)
    def test_two_people_cannot_use_the_last_one(self, boss: User, campaign: Campaign) -> None:
        invitation, _ = invite(campaign, boss)
        people = [make_user(role=None) for _ in range(6)]
        start, outcomes = threading.Barrier(len(people)), []

        def run(user: User) -> None:
            mine = Invitation.objects.select_related("campaign__project").get(pk=invitation.pk)
            start.wait()
            try:
                members.join(invitation=mine, user=user)
                outcomes.append("in")
            except Refused as error:
                outcomes.append(error.code)
            finally:
                connection.close()

        threads = [threading.Thread(target=run, args=[user]) for user in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["closed"] * 5 + ["in"]
        invitation.refresh_from_db()
        assert invitation.uses_left == 0
        assert Membership.objects.filter(user__in=people).count() == 1


class TestMembers:
    def test_it_lists_people_with_their_counts(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        ann = make_user("ann")
        submit(claim(ann, campaign))
        Membership.objects.filter(user=ann).delete()
        client.force_login(boss)
        text = client.get(f"/campaigns/{campaign.pk}/members/").content.decode()
        assert "everyone who may judge" in text
        [row] = members.people(campaign)
        assert (row.user, row.submitted, row.skipped) == (ann, 1, 0)
        assert (row.listed, row.admitted) == (False, False)

    def test_it_adds_and_removes_people_and_groups(
        self, client: Client, boss: User, campaign: Campaign
    ) -> None:
        ann, stranger = make_user("ann"), make_user("stranger", role=None)
        group = Group.objects.create(name="night shift")
        client.force_login(boss)
        url = f"/campaigns/{campaign.pk}/members/"
        # Somebody outside the project needs an invitation.
        people = {"user": [ann.pk, stranger.pk], "group": [group.pk]}
        client.post(url, {"do": "add"} | people)
        assert list(campaign.members.all()) == [ann]
        assert list(campaign.groups.all()) == [group]
        assert not admits(campaign, boss)
        client.post(url, {"do": "remove", "group": group.pk})
        text = client.get(url).content.decode()
        assert "Remove, and let everyone in the project judge" in text
        client.post(url, {"do": "remove", "user": ann.pk})
        assert not campaign.members.exists()
        assert not campaign.groups.exists()
        assert "Nobody was chosen" in client.post(url, {"do": "add"}, follow=True).content.decode()
