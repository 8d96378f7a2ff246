"""Datasets that somebody ordered, and what became of each."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import annotation.export_rows


class Migration(migrations.Migration):
    dependencies = [
        ("annotation", "0014_campaigns_say_who_was_asked"),
        ("generation", "0014_sources_come_with_imported_judgments"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Export",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=12,
                    ),
                ),
                ("epoch", models.PositiveIntegerField(default=0, editable=False)),
                ("lease_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempt", models.PositiveIntegerField(default=0, editable=False)),
                ("progress", models.PositiveIntegerField(default=0, editable=False)),
                ("total", models.PositiveIntegerField(default=0, editable=False)),
                ("message", models.CharField(blank=True, editable=False, max_length=500)),
                ("error", models.TextField(blank=True, editable=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("finished_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("selection", models.JSONField(default=dict)),
                ("format", models.CharField(default="canonical", max_length=24)),
                (
                    "pictures",
                    models.CharField(
                        choices=[
                            ("files", "as files"),
                            ("none", "none, only their hashes"),
                            ("parquet", "inside the Parquet files"),
                            ("webdataset", "as WebDataset tars"),
                        ],
                        default="files",
                        max_length=10,
                    ),
                ),
                ("max_side", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "salt",
                    models.CharField(
                        default=annotation.export_rows.new_salt, editable=False, max_length=64
                    ),
                ),
                ("difference", models.JSONField(blank=True, null=True)),
                ("content_hash", models.CharField(blank=True, max_length=64)),
                ("counts", models.JSONField(default=dict)),
                ("losses", models.JSONField(default=list)),
                ("archive", models.CharField(blank=True, max_length=200)),
                ("byte_size", models.PositiveBigIntegerField(blank=True, null=True)),
                (
                    "previous",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="annotation.export",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="exports",
                        to="generation.project",
                    ),
                ),
                (
                    "requested_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
                "indexes": [
                    models.Index(fields=["project", "-created_at"], name="export_by_project")
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["queued", "running", "succeeded", "failed", "cancelled"])
                        ),
                        name="annotation_export_state_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "running"), _negated=True),
                            ("lease_until__isnull", False),
                            _connector="OR",
                        ),
                        name="annotation_export_running_has_lease",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("pictures__in", ["files", "none", "parquet", "webdataset"])
                        ),
                        name="export_pictures_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "succeeded"), _negated=True),
                            ("byte_size__isnull", False),
                            _connector="OR",
                        ),
                        name="export_finished_has_a_size",
                    ),
                ],
            },
        ),
    ]
