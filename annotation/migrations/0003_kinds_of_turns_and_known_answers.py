"""Kinds of turns, known answers, seats, invitations, examples, and a queue that reads one index."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0002_judgments_stay_inside_their_set"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("generation", "0004_every_source_has_a_project"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Example",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("good", models.BooleanField(default=True)),
                ("caption", models.CharField(blank=True, max_length=200)),
                ("order", models.PositiveSmallIntegerField(default=0)),
            ],
            options={
                "ordering": ["-good", "order", "pk"],
            },
        ),
        migrations.CreateModel(
            name="Invitation",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("note", models.CharField(blank=True, max_length=120)),
                ("uses_left", models.PositiveIntegerField(default=1)),
                ("expires_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Seat",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("practice_passed_at", models.DateTimeField(blank=True, null=True)),
                ("paused_at", models.DateTimeField(blank=True, null=True)),
                ("paused_reason", models.CharField(blank=True, max_length=300)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="assignment",
            name="assignment_one_live_lease_per_slot",
        ),
        migrations.RemoveConstraint(
            model_name="assignment",
            name="assignment_once_per_annotator",
        ),
        migrations.RemoveConstraint(
            model_name="item",
            name="item_once",
        ),
        migrations.RemoveIndex(
            model_name="item",
            name="item_queue",
        ),
        migrations.RenameField(
            model_name="item",
            old_name="shuffle",
            new_name="position",
        ),
        migrations.AddField(
            model_name="assignment",
            name="comment",
            field=models.TextField(blank=True),
        ),
        migrations.AddField(
            model_name="assignment",
            name="kind",
            field=models.CharField(
                choices=[
                    ("work", "Work"),
                    ("gold", "Gold"),
                    ("repeat", "Repeat"),
                    ("practice", "Practice"),
                    ("review", "Review"),
                ],
                default="work",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="break_minutes",
            field=models.PositiveSmallIntegerField(
                default=45, help_text="Suggest a break after so many minutes of work; 0: never."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="daily_limit",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Sets a person may judge in a day; empty: no limit.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="deadline",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="campaign",
            name="editable",
            field=models.BooleanField(
                default=True, help_text="People may correct their own judgments while it is open."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="groups",
            field=models.ManyToManyField(blank=True, to="auth.group"),
        ),
        migrations.AddField(
            model_name="campaign",
            name="one_at_a_time",
            field=models.BooleanField(
                default=False, help_text="Show one dimension at a time instead of all of them."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="pause_after",
            field=models.PositiveSmallIntegerField(
                default=10, help_text="Known answers a person must have given before that."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="pause_below",
            field=models.FloatField(
                blank=True,
                help_text="A person whose accuracy on known answers falls below this is paused; empty: nobody is.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="practice_sets",
            field=models.PositiveSmallIntegerField(
                default=0, help_text="Practice sets to be passed before work counts; 0: none."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="practice_share",
            field=models.FloatField(
                default=0.8, help_text="Share of the practice answers that must be right, 0 to 1."
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="project",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="campaigns",
                to="generation.project",
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="show_gold",
            field=models.BooleanField(
                default=False, help_text="Show people how often they agree with the known answers."
            ),
        ),
        migrations.AddField(
            model_name="gold",
            name="attention",
            field=models.BooleanField(
                default=False,
                help_text="So plain that only somebody who does not look gets it wrong.",
            ),
        ),
        migrations.AddField(
            model_name="gold",
            name="origin",
            field=models.CharField(
                choices=[
                    ("hand", "set by hand"),
                    ("consensus", "Consensus"),
                    ("truth", "ground truth"),
                ],
                default="hand",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="gold",
            name="practice",
            field=models.BooleanField(
                default=False, help_text="Used for practice, not for checking."
            ),
        ),
        migrations.AddField(
            model_name="item",
            name="full",
            field=models.BooleanField(default=False, editable=False),
        ),
        migrations.AddField(
            model_name="item",
            name="shown",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AlterField(
            model_name="campaign",
            name="gold_rate",
            field=models.FloatField(
                default=0.0, help_text="Share of turns at sets whose answer is known, 0 to 1."
            ),
        ),
        migrations.AlterField(
            model_name="campaign",
            name="guideline",
            field=models.TextField(blank=True, help_text="Markdown."),
        ),
        migrations.AlterField(
            model_name="campaign",
            name="members",
            field=models.ManyToManyField(
                blank=True,
                help_text="No member and no group chosen: everyone in the project.",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="campaign",
            name="repeat_rate",
            field=models.FloatField(
                default=0.0,
                help_text="Share of turns at sets the same person has judged before, 0 to 1.",
            ),
        ),
        migrations.AddIndex(
            model_name="assignment",
            index=models.Index(fields=["annotator", "-submitted_at"], name="assignment_history"),
        ),
        migrations.AddIndex(
            model_name="assignment",
            index=models.Index(
                condition=models.Q(("state", "open")),
                fields=["lease_until"],
                name="assignment_leases",
            ),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(
                condition=models.Q(("full", False)),
                fields=["campaign", "position", "id"],
                name="item_queue",
            ),
        ),
        migrations.AddConstraint(
            model_name="assignment",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "work"), ("state__in", ["open", "submitted"])),
                fields=("item", "slot"),
                name="assignment_one_live_lease_per_slot",
            ),
        ),
        migrations.AddConstraint(
            model_name="assignment",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    models.Q(("state", "expired"), _negated=True),
                    models.Q(("kind", "practice"), _negated=True),
                ),
                fields=("item", "annotator", "kind"),
                name="assignment_once_per_annotator",
            ),
        ),
        migrations.AddConstraint(
            model_name="assignment",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["work", "gold", "repeat", "practice", "review"])),
                name="assignment_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="campaign",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("practice_share__range", (0, 1)),
                    models.Q(
                        ("pause_below__isnull", True),
                        ("pause_below__range", (0, 1)),
                        _connector="OR",
                    ),
                ),
                name="campaign_thresholds_are_shares",
            ),
        ),
        migrations.AddConstraint(
            model_name="campaign",
            constraint=models.CheckConstraint(
                condition=models.Q(("purpose__in", ["preference", "comparison", "rating"])),
                name="campaign_purpose_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="gold",
            constraint=models.CheckConstraint(
                condition=models.Q(("origin__in", ["hand", "consensus", "truth"])),
                name="gold_origin_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.UniqueConstraint(
                fields=("campaign", "set", "shown"), name="item_once"
            ),
        ),
        migrations.AddField(
            model_name="example",
            name="dimension",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="examples",
                to="annotation.dimension",
            ),
        ),
        migrations.AddField(
            model_name="example",
            name="image",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="generation.image"
            ),
        ),
        migrations.AddField(
            model_name="invitation",
            name="campaign",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="invitations",
                to="annotation.campaign",
            ),
        ),
        migrations.AddField(
            model_name="invitation",
            name="created_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="seat",
            name="campaign",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="seats",
                to="annotation.campaign",
            ),
        ),
        migrations.AddField(
            model_name="seat",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="seats",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddConstraint(
            model_name="seat",
            constraint=models.UniqueConstraint(fields=("campaign", "user"), name="seat_once"),
        ),
    ]
