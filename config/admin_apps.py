from django.contrib.admin.apps import AdminConfig


class AuditedAdmin(AdminConfig):
    """The admin whose changes go into the audit log."""

    default_site = "generation.audit_admin.Site"
