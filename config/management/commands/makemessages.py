"""Django's makemessages for this repository: `make messages` runs it and compiles the result.

One catalogue per language, without places and dates, so that a diff shows words only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.commands import makemessages


class Command(makemessages.Command):
    xgettext_options = [*makemessages.Command.xgettext_options, "--keyword=lazy"]

    def add_arguments(self, parser: Any) -> None:
        super().add_arguments(parser)
        parser.set_defaults(
            locale=[locale.name for locale in Path(settings.LOCALE_PATHS[0]).iterdir()],
            ignore_patterns=["tests/*", ".venv/*", ".data/*", "*/management/commands/*"],
            no_location=True,
            add_location="never",
            no_obsolete=True,
        )

    def write_po_file(self, potfile: str, locale: str) -> None:
        super().write_po_file(potfile, locale)
        path = Path(potfile).parent / locale / "LC_MESSAGES" / "django.po"
        path.write_text(re.sub(r'"POT-Creation-Date: .*\n', "", path.read_text()))
