"""OneLoop from Python.

    from oneloop import Client

    with Client("http://localhost:8000", token="olp_…") as client:
        report = client.sources.push("my-photos", task="fill")
        for judgment in client.judgments.list(campaign=7, since="2026-01-01T00:00:00Z"):
            ...

The token is made on the page “Account”. Lists are iterators that fetch page after page; writes are
sent again after a failure without being done twice; a refusal is raised with its reason.
"""

from .client import Client
from .errors import (
    ApiError,
    Conflict,
    Invalid,
    NotAllowed,
    NotFound,
    OneLoopError,
    ServerError,
    TooOften,
    Unreachable,
)
from .pushing import NewSource
from .rows import (
    Adding,
    Campaign,
    Candidate,
    CandidateSet,
    Coverage,
    Covered,
    Dimension,
    Export,
    Generation,
    Image,
    Item,
    Judgment,
    Me,
    Person,
    Policy,
    Preference,
    Progress,
    Project,
    Pushed,
    Rating,
    Refused,
    RewardModel,
    Round,
    Source,
    Step,
    Study,
    Task,
    Training,
    Wording,
)

__all__ = [
    "Adding",
    "ApiError",
    "Campaign",
    "Candidate",
    "CandidateSet",
    "Client",
    "Conflict",
    "Coverage",
    "Covered",
    "Dimension",
    "Export",
    "Generation",
    "Image",
    "Invalid",
    "Item",
    "Judgment",
    "Me",
    "NewSource",
    "NotAllowed",
    "NotFound",
    "OneLoopError",
    "Person",
    "Policy",
    "Preference",
    "Progress",
    "Project",
    "Pushed",
    "Rating",
    "Refused",
    "RewardModel",
    "Round",
    "ServerError",
    "Source",
    "Step",
    "Study",
    "Task",
    "TooOften",
    "Training",
    "Unreachable",
    "Wording",
]
