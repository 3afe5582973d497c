"""Weights on the Hugging Face hub: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`."""

import errno
import functools
import os
import re
from pathlib import Path

from tmanet_jax.data.files import why_not_written
from tmanet_jax.errors import UserError

WEIGHTS = "model.safetensors"
"""The weights in a folder that is published: the name that the hub knows."""

_SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?!.*\.\.)([\w.-]+/[\w.-]+)(?:@(\w[\w./-]*))?", re.ASCII)
_OF_THE_CACHE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)


def fetched(path: str | os.PathLike[str]) -> Path:
    """Where a file of weights lies; one on the hub is downloaded, or found where it was before.

    Of a repository the weights alone are downloaded, once by each process.

    Args:
        path: of a file or a folder, which it stays; or an address on the hub.

    Raises:
        UserError: the address is malformed, huggingface_hub is not installed, there is no such
            repository, revision or file, the hub cannot be reached, or the disk is full.
    """
    return _downloaded(path) if isinstance(path, str) and path.startswith(_SCHEME) else Path(path)


@functools.cache
def _downloaded(address: str) -> Path:
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise _malformed(address)
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise UserError(
            f"{address} is on the Hugging Face hub, which needs huggingface_hub: pip install -r "
            "requirements-hub.txt. Or download its folder, and name that."
        ) from error
    repository, revision = parts.groups()
    try:
        return Path(hf_hub_download(repository, WEIGHTS, revision=revision))
    except errors.HFValidationError as error:
        raise _malformed(address) from error
    except errors.GatedRepoError:
        reason = f"{repository} is for those who agreed to its terms: do so on its page, and log in"
    except errors.RepositoryNotFoundError:
        reason = f"there is no {repository}, or it is private: see its name, or log in"
    except errors.RevisionNotFoundError:
        reason = f"{repository} has no revision {revision}: see its branches, tags and commits"
    except errors.RemoteEntryNotFoundError:
        reason = f"{repository} has no {WEIGHTS}: it was not published by this project"
    except (errors.HTTPError, OSError) as error:
        if getattr(error, "errno", None) in _OF_THE_CACHE:
            raise UserError(f"{address} cannot be kept: {why_not_written(error)}.") from error
        cause = str(error.__cause__ or error).partition("\n")[0]
        reason = f"the hub cannot be reached ({cause}): see your network"
    raise UserError(f"{address} cannot be read: {reason}.")


def _malformed(address: str) -> UserError:
    return UserError(
        f"{address!r} is no address on the hub: write hf://OWNER/NAME or hf://OWNER/NAME@REVISION."
    )
