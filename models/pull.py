"""`models pull`: the files of a repository that a model needs, and no others, through huggingface_hub and its cache.

A file that was finished is not fetched again, and a connection that breaks is taken up where it broke (the library's doing). What was
pulled is found under its name in `home()/pulled`, a folder of links into the cache.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from models.checkpoint.weights import PYTORCH, SAFETENSORS
from models.errors import BadValue, DoesNotFit, ThermoclineError, Unavailable
from models.paths import pulled_folder

BESIDE = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
)
SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)")
GGUF = re.compile(r"[\w. -]+\.gguf")
GGUF_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
PREDICTOR = re.compile(r"model_\d{1,5}\.pt")
COUNTS = re.compile(r"activation/activation_\d{1,5}\.pt")  # PowerInfer's firing counts, beside its GGUF files
MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Hub:
    """Where repositories are, and where their files are kept. None: as the library's own settings say."""

    endpoint: str | None = None
    cache: Path | None = None


def pull(repo: str, *, revision: str | None = None, files: Sequence[str] = (), hub: Hub | None = None) -> Path:
    """Fetches what `repo` needs and is missing, and gives the folder to use; a ThermoclineError says in one line why not."""
    library, where = import_library(), hub or Hub()
    cache = where.cache or Path(library.constants.HF_HUB_CACHE)
    with told(library, repo, revision, cache):
        found = library.HfApi(endpoint=where.endpoint).model_info(repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or []}
        names = needed(repo, list(sizes), files)
        cached = [name for name in names if isinstance(library.try_to_load_from_cache(repo, name, cache, found.sha), str)]
        check_room(cache, sum(sizes[name] for name in names if name not in cached))
        patterns = [re.sub(r"([*?[])", r"[\1]", name) for name in names]
        snapshot = library.snapshot_download(repo, revision=found.sha, allow_patterns=patterns, cache_dir=cache, endpoint=where.endpoint)
        return link(Path(snapshot), names, pulled_folder(repo))


def import_library() -> ModuleType:
    """huggingface_hub, which is an extra: it is not needed for a model that is there."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise Unavailable("models pull", "needs huggingface_hub; install it with `pip install 'thermocline[pull]'`") from None
    return huggingface_hub


def needed(repo: str, names: Sequence[str], files: Sequence[str] = ()) -> list[str]:
    """Of a repository's files, the weights in the one form we would read, and what lies beside them. BadValue when there are none."""
    if strange := sorted(set(files) - set(names)):
        raise BadValue("--file", strange[0], f"is not in {repo}")
    weights = list(files) or weights_of(repo, names)
    counts = [name for name in names if COUNTS.fullmatch(name)] if any(GGUF.fullmatch(name) for name in weights) else []
    return sorted({*weights, *counts, *(name for name in BESIDE if name in names)})


def weights_of(repo: str, names: Sequence[str]) -> list[str]:
    for single, index in (SAFETENSORS, PYTORCH):
        if single in names:
            return [single]
        if index in names:
            stem, end = single.rsplit(".", 1)
            return [index, *(name for name in names if SHARD.fullmatch(name) and name.startswith(stem) and name.endswith(end))]
    if predictors := [name for name in names if PREDICTOR.fullmatch(name)]:
        return predictors
    found = [name for name in names if GGUF.fullmatch(name)]
    if len({GGUF_SHARD.sub("", name) for name in found}) > 1:
        raise BadValue("REPO", repo, f"holds several models: {', '.join(found[:MOST_SHOWN])}; choose with --file NAME")
    if not found:
        raise BadValue("REPO", repo, "holds no weights that we can read (safetensors, pytorch_model.bin, GGUF, predictors)")
    return found


def check_room(cache: Path, need_bytes: int) -> None:
    """Raises DoesNotFit when the disk that holds `cache` has fewer bytes free."""
    there = cache.absolute()
    while not there.exists():
        there = there.parent
    free_bytes = shutil.disk_usage(there).free
    if need_bytes > free_bytes:
        raise DoesNotFit("disk", need_bytes, free_bytes, f"free some space under {cache}, or set HF_HOME to another disk")


def link(snapshot: Path, names: Sequence[str], target: Path) -> Path:
    """A folder of links to the files of a snapshot, in place of the one of an earlier pull."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    for name in names:
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).symlink_to((snapshot / name).resolve())
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


@contextmanager
def told(library: ModuleType, repo: str, revision: str | None, cache: Path) -> Iterator[None]:
    """What the library raises becomes one line of ours."""
    errors = library.errors
    try:
        yield
    except ThermoclineError:
        raise
    except errors.HFValidationError:
        raise BadValue("REPO", repo, "is not the name of a repository; write it like owner/name") from None
    except errors.GatedRepoError:
        raise Unavailable(repo, "is given only to who has accepted its terms: do so on its page, then `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise Unavailable(repo, f"has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise Unavailable(repo, "does not exist, or is private: if it is yours, `hf auth login` first") from None
    except errors.OfflineModeIsEnabled:
        raise Unavailable(repo, "cannot be pulled: HF_HUB_OFFLINE is set") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "nothing")
        raise Unavailable(repo, f"cannot be pulled: the hub answered {status}; try again later") from None
    except errors.HTTPError as error:
        raise Unavailable(repo, f"cannot be pulled: no network, or no hub there ({type(error).__name__}); {AGAIN}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("disk", f"{cache} filled up; free some space there, or set HF_HOME to another disk; {AGAIN}") from None
        if isinstance(error, errors.LocalEntryNotFoundError) or error.errno is None:
            raise Unavailable(repo, f"was not pulled whole: the connection was lost; {AGAIN}") from None
        raise


AGAIN = "finished files stay, run the same command again"
