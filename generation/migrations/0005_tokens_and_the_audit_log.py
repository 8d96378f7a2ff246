"""API tokens, and an audit log that can only be added to.

TRUNCATE stays possible: it is what empties a test's tables.
"""

import datetime

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

FORWARD = """
CREATE FUNCTION generation_audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'The audit log is only added to: % was refused.', TG_OP
    USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER audit_is_final BEFORE UPDATE OR DELETE ON generation_auditentry
FOR EACH STATEMENT EXECUTE FUNCTION generation_audit_is_final();
"""

BACKWARD = """
DROP TRIGGER audit_is_final ON generation_auditentry;
DROP FUNCTION generation_audit_is_final;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("generation", "0004_every_source_has_a_project"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ("actor_name", models.CharField(blank=True, max_length=150)),
                ("verb", models.CharField(max_length=40)),
                ("kind", models.CharField(max_length=40)),
                ("object_id", models.CharField(blank=True, max_length=40)),
                ("name", models.CharField(blank=True, max_length=200)),
                ("detail", models.JSONField(default=dict)),
                ("address", models.GenericIPAddressField(null=True)),
                (
                    "actor",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="generation.project",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "audit entries",
                "ordering": ["-pk"],
                "indexes": [
                    models.Index(fields=["project", "-id"], name="audit_of_project"),
                    models.Index(fields=["actor", "-id"], name="audit_of_actor"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Token",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=80)),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("prefix", models.CharField(max_length=12)),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(
                            choices=[
                                ("read", "read what its owner may see"),
                                ("label", "take turns and submit judgments"),
                                ("manage", "run campaigns and rounds"),
                                ("export", "download labels"),
                            ],
                            max_length=12,
                        ),
                        size=None,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("expires_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tokens",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-pk"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("scopes__contained_by", ["read", "label", "manage", "export"]),
                            ("scopes__len__gt", 0),
                        ),
                        name="token_scopes_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "expires_at__lte",
                                django.db.models.expressions.CombinedExpression(
                                    models.F("created_at"),
                                    "+",
                                    models.Value(datetime.timedelta(days=365)),
                                ),
                            )
                        ),
                        name="token_at_most_a_year",
                    ),
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
