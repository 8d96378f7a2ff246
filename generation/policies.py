"""Policies: registered where their weights are, one of them active. Nothing here loads weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from generation import audit, locations, shared
from generation.checkpoints import (
    CheckpointError,
    check_model,
    check_safetensors,
    check_weights,
    read_card,
    read_object,
)
from generation.diffusion.spec import LORA_FILE
from generation.locations import LocationError, is_local
from generation.models import Policy, Verb

COMPONENTS = (
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "scheduler",
)
WITH_WEIGHTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
# FLUX.1's: its VAE has eight pixels per latent, and a token is two latents wide.
USUAL_MULTIPLE = 16
DEEPEST_VAE = 8


class PolicyError(ValueError):
    """A policy that cannot be registered or used; the message says what to do."""


def register(
    *,
    name: str,
    location: str = "",
    kind: str = "",
    parent: Policy | None = None,
    revision: str = "",
    transformer: str = "",
    subfolder: str = "",
    adapter: str = "",
    max_pixels: int | None = None,
    card: dict[str, Any] | None = None,
) -> Policy:
    """Add a policy after looking at its files. Raises PolicyError; nothing is stored then.

    A policy with a parent is a trained one unless `kind` says otherwise.
    """
    kind = kind or (Policy.Kind.TRAINED if parent else Policy.Kind.BASE)
    if kind not in Policy.Kind.values:
        raise PolicyError(
            _("“%(kind)s” is no kind of policy. Write %(values)s.")
            % {"kind": kind, "values": ", ".join(Policy.Kind.values)}
        )
    if not name.strip():
        raise PolicyError(_("A policy needs a name."))
    if Policy.objects.filter(name=name).exists():
        raise PolicyError(
            _("There is a policy “%(name)s” already. Choose another name.") % {"name": name}
        )
    if kind == Policy.Kind.TRAINED and parent is None:
        raise PolicyError(_("A trained policy needs its parent."))
    found: dict[str, Any] = {}
    if kind != Policy.Kind.EXTERNAL:
        try:
            locations.check_all([location, transformer, adapter])
        except LocationError as error:
            raise PolicyError(str(error)) from None
        spec = {"location": location, "transformer": transformer, "adapter": adapter}
        spec |= {"revision": revision, "subfolder": subfolder}
        found = inspect(**shared.local_spec(spec))
    if max_pixels is None:
        max_pixels = parent.max_pixels if parent else 1024 * 1024
    multiple = found.get("size_multiple", USUAL_MULTIPLE)
    if max_pixels < multiple**2:
        raise PolicyError(
            _(
                "%(max_pixels)s pixels are too few: this policy's smallest picture has "
                "%(multiple)s × %(multiple)s."
            )
            % {"max_pixels": max_pixels, "multiple": multiple}
        )
    return Policy.objects.create(
        name=name,
        kind=kind,
        parent=parent,
        location=location,
        revision=revision,
        transformer=transformer,
        subfolder=subfolder,
        adapter=adapter,
        max_pixels=max_pixels,
        card=found | (card or {}),
    )


@transaction.atomic
def activate(policy: Policy, *, actor: User | None = None) -> None:
    """Let the next candidates come from this policy; the one that was active retires.

    Without an actor a round promotes it.
    """
    # Two who activate at once wait for each other here, and the later one wins.
    locked = {row.pk: row for row in Policy.objects.select_for_update().order_by("pk")}
    if policy.pk not in locked:
        raise PolicyError(_("The policy “%(policy)s” is gone.") % {"policy": policy})
    if locked[policy.pk].kind == Policy.Kind.EXTERNAL:
        raise PolicyError(
            _("“%(policy)s” is an external system: nothing can be generated with it.")
            % {"policy": policy}
        )
    if locked[policy.pk].state != Policy.State.ACTIVE:
        before = [row.name for row in locked.values() if row.state == Policy.State.ACTIVE]
        Policy.objects.filter(state=Policy.State.ACTIVE).update(state=Policy.State.RETIRED)
        Policy.objects.filter(pk=policy.pk).update(
            state=Policy.State.ACTIVE, promoted_at=timezone.now()
        )
        audit.record(
            actor=actor,
            verb=Verb.POLICY_ACTIVE,
            thing=policy,
            before={"active": before},
            after={"active": [policy.name]},
        )
    policy.refresh_from_db()


def active() -> Policy:
    policy = Policy.objects.filter(state=Policy.State.ACTIVE).first()
    if policy is None:
        raise PolicyError(
            _(
                "No policy is active. Register one with `register_policy LOCATION "
                "--activate`, or make one active on the policies page."
            )
        )
    return policy


def named(name: str) -> Policy:
    """A policy by its name or number."""
    policy = Policy.objects.filter(name=name).first()
    if policy is None and name.isdecimal():
        policy = Policy.objects.filter(pk=int(name)).first()
    if policy is None:
        known = ", ".join(f"“{known}”" for known in Policy.objects.values_list("name", flat=True))
        raise PolicyError(
            _("There is no policy “%(name)s”. Registered: %(known)s.")
            % {"name": name, "known": known or _("none")}
        )
    return policy


def size_multiple(policy: Policy) -> int:
    """Sides of this policy's pictures are multiples of this."""
    return int(policy.card.get("size_multiple") or _size_multiple(Path(policy.location)))


def makes_from_text_alone(policy: Policy) -> bool:
    """Whether its transformer reads no picture beside the noise, as FLUX.1-dev's."""
    return bool(policy.card.get("text_to_image"))


# Looking at files -------------------------------------------------------------------------------


def inspect(
    location: str,
    *,
    revision: str = "",
    transformer: str = "",
    subfolder: str = "",
    adapter: str = "",
) -> dict[str, Any]:
    """What a location says about itself, for the policy's card. Raises PolicyError."""
    if not location:
        raise PolicyError(_("Say where the weights are: a hub id, or a directory."))
    try:
        locations.check_all([location, adapter])
        locations.check(transformer or location, subfolder)
        return _inspect(location, revision, transformer, subfolder, adapter)
    except (CheckpointError, LocationError) as error:
        raise PolicyError(str(error)) from None
    except (OSError, RuntimeError) as error:
        raise PolicyError(
            _("%(path)s cannot be looked at (%(error)s).") % {"path": location, "error": error}
        ) from None


def _inspect(
    location: str, revision: str, transformer: str, subfolder: str, adapter: str
) -> dict[str, Any]:
    card: dict[str, Any] = {}
    elsewhere = bool(transformer or subfolder)
    if is_local(location):
        card |= _inspect_pipeline(Path(location).expanduser(), skip_transformer=elsewhere)
    else:
        card |= _inspect_hub(location, revision)
    place, folder = transformer or location, subfolder or "transformer"
    if is_local(place):
        config: Path | None = Path(place).expanduser() / folder / "config.json"
        if elsewhere:
            check_model(Path(place).expanduser() / folder)
    else:
        config = _hub_file(
            place, f"{folder}/config.json", revision if place == location else "", card
        )
    if config is not None and _is_text_to_image(config):
        card["text_to_image"] = True
    if adapter:
        card |= _inspect_adapter(adapter)
    return card


def _is_text_to_image(config: Path) -> bool:
    """FLUX.1-dev's transformer reads noise alone; Fill's reads the masked picture beside it."""
    found = read_object(config, _("No model in %(path)s") % {"path": config.parent})
    channels = found.get("in_channels")
    return channels is not None and (found.get("out_channels") or channels) == channels


def _inspect_pipeline(path: Path, *, skip_transformer: bool) -> dict[str, Any]:
    if not path.is_dir():
        raise PolicyError(
            _("%(path)s is not a directory. Check the path, or download the checkpoint.")
            % {"path": path}
        )
    read_object(
        path / "model_index.json",
        _("%(path)s is not a pipeline in diffusers' layout") % {"path": path},
    )
    missing = [part for part in COMPONENTS if not (path / part).is_dir()]
    if skip_transformer and "transformer" in missing:
        missing.remove("transformer")
    if missing:
        raise PolicyError(
            _("%(path)s lacks %(missing)s. A Fill pipeline has %(components)s.")
            % {"path": path, "missing": ", ".join(missing), "components": ", ".join(COMPONENTS)}
        )
    for part in WITH_WEIGHTS:
        if not (skip_transformer and part == "transformer"):
            check_model(path / part)
    return read_card(path) | {"size_multiple": _size_multiple(path)}


def _inspect_hub(location: str, revision: str) -> dict[str, Any]:
    """Ask the hub, where it can be reached, whether the pipeline exists and may be read."""
    card: dict[str, Any] = {}
    _hub_file(location, "model_index.json", revision, card)
    vae = _hub_file(location, "vae/config.json", revision, card)
    return card if vae is None else card | {"size_multiple": _size_multiple(vae.parent.parent)}


def _hub_file(location: str, file: str, revision: str, card: dict[str, Any]) -> Path | None:
    """The file from the hub or its cache. Offline and not downloaded yet it is taken on trust:
    None, and the card says so; it is checked when it is loaded."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(location, file, revision=revision or None))
    except HFValidationError as error:
        raise PolicyError(
            _("The hub has no %(location)s: %(error)s.") % {"location": location, "error": error}
        ) from None
    except GatedRepoError:
        raise PolicyError(
            _(
                "%(location)s asks for its licence to be accepted: do so on its page on the "
                "hub, then set HF_TOKEN."
            )
            % {"location": location}
        ) from None
    except RevisionNotFoundError:
        raise PolicyError(
            _("%(location)s has no revision “%(revision)s”.")
            % {"location": location, "revision": revision}
        ) from None
    except RepositoryNotFoundError:
        raise PolicyError(
            _("The hub has no %(location)s, or it is private. Check the name, or set HF_TOKEN.")
            % {"location": location}
        ) from None
    except LocalEntryNotFoundError:
        card["unchecked"] = "the hub could not be reached at registration"
    except EntryNotFoundError:
        if file == "model_index.json":
            raise PolicyError(
                _("%(location)s is not a pipeline in diffusers' layout.") % {"location": location}
            ) from None
        raise PolicyError(
            _("The hub has no %(location)s, or it is private. Check the name, or set HF_TOKEN.")
            % {"location": f"{location}/{file}"}
        ) from None
    except OSError:
        card["unchecked"] = "the hub could not be reached at registration"
    return None


def _inspect_adapter(adapter: str) -> dict[str, Any]:
    if not is_local(adapter):
        owner, *names = adapter.split("/")
        file = "/".join(names[1:])
        if not file.endswith(".safetensors"):
            file = f"{file}/{LORA_FILE}".lstrip("/")
        card: dict[str, Any] = {}
        _hub_file("/".join([owner, *names[:1]]), file, "", card)
        return card
    path = Path(adapter).expanduser()
    if path.suffix == ".safetensors" and path.is_file():
        check_safetensors(path)
        return {}
    if not path.is_dir():
        raise PolicyError(
            _("The adapter's directory %(path)s does not exist. Check the path.") % {"path": path}
        )
    if not any(path.glob("*.safetensors")):
        raise PolicyError(
            _("There is no LoRA in %(path)s: %(lora_file)s is missing. Pickles are not loaded.")
            % {"path": path, "lora_file": LORA_FILE}
        )
    check_weights(path)
    return read_card(path)


def _size_multiple(path: Path) -> int:
    try:
        channels = read_object(path / "vae" / "config.json", "")["block_out_channels"]
    except (CheckpointError, KeyError):
        return USUAL_MULTIPLE
    deep = len(channels) if isinstance(channels, list) else 0
    return 2**deep if 1 <= deep <= DEEPEST_VAE else USUAL_MULTIPLE
