"""Does the web server of this machine answer? A probe for containers; standard library only.

    python -m config.answers

It asks as the proxy would: by https, for a host that the site knows.
"""

from __future__ import annotations

import http.client
import os
import sys


def complaint(port: int, host: str, path: str = "/healthz") -> str:
    """ "" when it answers, else what is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", path, headers={"Host": host, "X-Forwarded-Proto": "https"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"The web server does not answer on port {port}: {error}"
    finally:
        connection.close()
    return "" if status == 200 else f"The web server answers {path} with {status}."


def main() -> int:
    host = os.environ.get("ALLOWED_HOSTS", "").split(",")[0].strip() or "localhost"
    said = complaint(int(os.environ.get("PORT") or 8000), host)
    print(said or "The web server answers.")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
