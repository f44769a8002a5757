"""Mirrors of the run: what a tracker shows. They never block a run and never end one.

The canonical record is `metrics.jsonl` and `trial.json`. For Weights & Biases the mode is resolved
here before `wandb.init`, which left alone raises without a key and waits 100 s without a network.
"""

import configparser
import hashlib
import netrc
import os
import socket
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

__all__ = [
    "KINDS",
    "MODES",
    "About",
    "Mirror",
    "WandbMirror",
    "measured",
    "mirror_of",
    "resolve_mode",
    "run_id",
    "scalars",
]

KINDS = ("wandb", "tensorboard")
MODES = ("online", "offline", "disabled")
_ALIASES = {"run": "online", "dryrun": "offline"} | {mode: mode for mode in MODES}
_PROBE_SECONDS = 3.0
_LONGEST_GROUP, _LONGEST_TAG = 128, 64  # W&B refuses a run with longer ones


@dataclass(frozen=True)
class About:
    """What a tracker shows of a run beside its numbers.

    `group` is "source->target", so that seeds and strategies of one pair lie together; a run of the
    same `id` is continued; `config` begins with what runs are grouped by.
    """

    project: str
    group: str
    job_type: str
    tags: Sequence[str]
    name: str
    id: str
    config: Mapping[str, Any]


class Mirror(Protocol):
    """What a run tells a tracker. Whatever the tracker does, every method returns normally.

    Use as `with mirror_of(…) as mirror: mirror.start(…)`, or call `finish` in a `finally`.
    """

    def __enter__(self) -> "Mirror":
        """Itself."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish, with the exit code 1 after an error."""

    @property
    def path(self) -> Path | None:
        """The folder of the tracker's files of this run; None before `start`."""

    def start(self, run_dir: str | Path, about: About, *, mode: str | None) -> None:
        """Begin, or continue, the run under `run_dir`; `mode` is one of MODES, None decides."""

    def log(self, values: Mapping[str, Any], better: Mapping[str, str] | None = None) -> None:
        """Add one row of scalars; it must have `kimg`, the x-axis of every plot.

        `better` says of a key whether "min" or "max" is its best.
        """

    def row(self, row: Mapping[str, Any]) -> None:
        """Add the row of a tick: see `scalars`."""

    def records(self, records: Iterable[Mapping[str, Any]], *, kimg: float) -> None:
        """Add the records of one evaluation as one row: see `measured`."""

    def image(
        self, path: str | Path, *, kimg: float, caption: str | None = None, key: str = "grid"
    ) -> None:
        """Add one picture."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set final values of the run."""

    def finish(self, exit_code: int = 0) -> None:
        """Close the run. Does nothing if there is none; safe to call twice."""


def mirror_of(logger: Mapping[str, Any], *, say: Callable[[str], None] = print) -> Mirror:
    """The mirror of a `logger` configuration. ValueError if its kind is unknown."""
    kind = logger.get("kind", "wandb")
    if kind not in KINDS:
        raise ValueError(f"logger.kind={kind!r}: allowed are {', '.join(KINDS)}")
    if kind == "wandb":
        return WandbMirror(say=say)
    from stylegan_tl.tensorboard import TensorBoardMirror

    return TensorBoardMirror(say=say)


def measured(records: Iterable[Mapping[str, Any]], kimg: float) -> dict[str, Any]:
    """The records of one evaluation that have a value, as the row of a tick."""
    records = [record for record in records if record["value"] is not None]
    values = {r["metric"]: r["value"] for r in records}
    return {"kimg": kimg, **values, "evaluations": records}


def scalars(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(values, better) of the row of a tick: its scalars, `change/<group>`, `flag/<name>`.

    A flag is 1 at the tick where it begins; the records of an evaluation say what is better.
    """
    nested = ("evaluations", "change", "change_note", "flags")
    values = {k: v for k, v in row.items() if k not in nested}
    values |= {f"change/{group}": v for group, v in row.get("change", {}).items()}
    values |= {f"flag/{flag['flag']}": 1 for flag in row.get("flags", ())}
    records = row.get("evaluations", ())
    values |= {f"{r['metric']}_stderr": r["stderr"] for r in records if "stderr" in r}
    better = {r["metric"]: r.get("better", "min") for r in records}
    return {k: v for k, v in values.items() if v is not None}, better


def resolve_mode(
    configured: str | None,
    *,
    env: Mapping[str, str] = os.environ,
    probe: Callable[[str, int], bool] | None = None,
) -> str:
    """Where W&B records go: "online", "offline" or "disabled".

    In order: `configured` (unless None or "auto"), WANDB_MODE, the mode in W&B's own settings
    files; else online if an API key exists and `probe(host, port)` reaches its server, else
    offline. The probe waits at most 3 s and runs only if there is a key. ValueError if a mode is
    misspelt.
    """
    settings = _settings_files(env)
    for key, value in (
        ("logger.mode", configured),
        ("WANDB_MODE", env.get("WANDB_MODE")),
        ("the mode in W&B's settings file", settings.get("mode")),
    ):
        if value and value != "auto":
            return _known_mode(key, value)
    url = env.get("WANDB_BASE_URL") or settings.get("base_url")
    if not _has_key(env, url):
        return "offline"
    reachable = (probe or _reachable)(*_route(url or _default_url(), env))
    return "online" if reachable else "offline"


def run_id(*identity: object) -> str:
    """A W&B id that is the same for the same `identity` and short enough to read in a path.

    Give it what makes this run itself and survives a resume, such as study, name, seed and the
    time it was first started.
    """
    text = "\0".join(str(part) for part in identity)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class WandbMirror:
    """One W&B run (a `Mirror`); the first error of W&B is printed."""

    def __init__(self, *, say: Callable[[str], None] = print) -> None:
        self.mode = "disabled"
        self._run: Any = None
        self._wandb: Any = None
        self._say = say
        self._warned = False
        self._better: dict[str, str] = {}  # metrics whose best is defined

    def __enter__(self) -> "WandbMirror":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.finish(0 if kind is None else 1)

    @property
    def url(self) -> str | None:
        """The page of an online run."""
        return self._run.url if self._run is not None and self.mode == "online" else None

    @property
    def path(self) -> Path | None:
        """The folder of the run's W&B files, which `wandb sync` uploads later."""
        return None if self._run is None else Path(self._run.dir).parent

    def start(self, run_dir: str | Path, about: About, *, mode: str | None) -> None:
        """Begin, or continue, the run under `run_dir/wandb`; online falls back to offline.

        ValueError if `mode` is none that `resolve_mode` knows.
        """
        mode = resolve_mode(mode)
        self.finish(0)
        self._better, self._warned = {}, False
        if mode == "disabled":
            return
        arguments = {
            "dir": str(run_dir),
            **asdict(about),
            "group": about.group[:_LONGEST_GROUP],
            "tags": list(dict.fromkeys(str(tag)[:_LONGEST_TAG] for tag in about.tags if str(tag))),
            "config": dict(about.config),
        }
        started = self._guard(f"could not start {mode}", lambda: self._init(mode, arguments))
        if mode == "online" and not started:
            self._guard("could not start offline", lambda: self._init_after_failure(arguments))

    def log(self, values: Mapping[str, Any], better: Mapping[str, str] | None = None) -> None:
        """Add one row of scalars; the summary shows the best of what has one."""
        self._to_run("could not log", lambda: self._log(dict(values), better or {}))

    def row(self, row: Mapping[str, Any]) -> None:
        """Add the row of a tick; its flags are alerts too, where online."""
        self.log(*scalars(row))
        for flag in row.get("flags", ()):
            self._to_run("could not alert", lambda flag=flag: self._alert(flag))

    def records(self, records: Iterable[Mapping[str, Any]], *, kimg: float) -> None:
        """Add the records of one evaluation as one row: values, `<metric>_stderr`."""
        self.log(*scalars(measured(records, kimg)))

    def image(
        self, path: str | Path, *, kimg: float, caption: str | None = None, key: str = "grid"
    ) -> None:
        """Add one picture. Its caption names `kimg`, which W&B's image slider does not."""
        self._to_run("could not log an image", lambda: self._log_image(path, kimg, caption, key))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set final values of the run."""
        self._to_run("could not set the summary", lambda: self._run.summary.update(dict(values)))

    def finish(self, exit_code: int = 0) -> None:
        """Close the run. Does nothing if there is none; safe to call twice."""
        self._to_run("could not finish", lambda: self._run.finish(exit_code=exit_code))
        self._run, self.mode = None, "disabled"

    def _init(self, mode: str, arguments: Mapping[str, Any]) -> None:
        import wandb

        Path(arguments["dir"]).mkdir(parents=True, exist_ok=True)
        if mode == "online" and not _has_key(os.environ, wandb.Settings().base_url):
            raise RuntimeError("no W&B API key; run `wandb login` or set WANDB_API_KEY")
        self._run = wandb.init(
            **arguments, mode=mode, resume="allow", reinit="create_new", settings=_quiet(wandb)
        )
        self._wandb, self.mode = wandb, mode
        self._run.define_metric("*", step_metric="kimg")

    def _init_after_failure(self, arguments: Mapping[str, Any]) -> None:
        import wandb

        wandb.teardown()  # its service still holds the id of the run that could not start
        self._init("offline", arguments)

    def _log(self, values: dict[str, Any], better: Mapping[str, str]) -> None:
        if "kimg" not in values:
            raise ValueError(f"a row needs 'kimg', got only {sorted(values)}")
        for key, best in better.items():
            if self._better.get(key) != best:
                self._better[key] = best
                self._run.define_metric(key, step_metric="kimg", summary=f"{best},last")
        self._run.log(values)

    def _alert(self, flag: Mapping[str, Any]) -> None:
        if self.mode == "online":
            where = f"tick {flag['tick']}, {flag['kimg']:g} kimg"
            self._run.alert(title=f"{flag['flag']} at {where}", text=flag["evidence"])

    def _log_image(self, path: str | Path, kimg: float, caption: str | None, key: str) -> None:
        caption = f"{kimg:g} kimg" + (f" - {caption}" if caption else "")
        self._run.log({"kimg": kimg, key: self._wandb.Image(str(path), caption=caption)})

    def _to_run(self, doing: str, call: Callable[[], object]) -> None:
        if self._run is not None:
            self._guard(doing, call)

    def _guard(self, doing: str, call: Callable[[], object]) -> bool:
        """Call; on any error print one line, once per run, and return False."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # W&B's advice is not the run's output
                call()
        except Exception as error:  # the tracker is a mirror: whatever breaks in it, train on
            self._complain(doing, error)
            return False
        return True

    def _complain(self, doing: str, error: Exception) -> None:
        if not self._warned:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"W&B {doing} ({reason[:200]}); training and the local record go on.")
        self._warned = True


def _quiet(wandb: Any) -> Any:
    wanted = {
        "console": "off",
        "silent": True,
        "disable_code": True,
        "init_timeout": 10,
        "login_timeout": 5,
        "finish_timeout": 60,
    }
    known = wandb.Settings.model_fields  # older versions lack some
    return wandb.Settings(**{key: value for key, value in wanted.items() if key in known})


def _known_mode(key: str, value: str) -> str:
    if value not in _ALIASES:
        raise ValueError(f"{key}={value!r}: allowed are auto, {', '.join(MODES)}")
    return _ALIASES[value]


def _settings_files(env: Mapping[str, str]) -> dict[str, str]:
    """W&B's own `mode` and `base_url`: the user's file, overridden by the working folder's."""
    home = Path(env.get("WANDB_CONFIG_DIR") or Path(env.get("HOME", "~")) / ".config/wandb")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read([home.expanduser() / "settings", Path("wandb") / "settings"])
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    return dict(parser["default"]) if parser.has_section("default") else {}


def _has_key(env: Mapping[str, str], url: str | None) -> bool:
    """Whether a key is in the environment or in netrc; without `url`, for W&B's own service."""
    if env.get("WANDB_API_KEY") or env.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        home = Path(env.get("HOME", "~")).expanduser()
        accounts = netrc.netrc(env.get("NETRC") or home / ".netrc").hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
    if url and urlsplit(url).netloc in accounts:
        return True
    service = urlsplit(_default_url()).netloc
    own = not url or urlsplit(url).netloc == service
    return own and not accounts.keys().isdisjoint((service, "api.wandb.ai"))


def _default_url() -> str:
    """The service's address, which has moved once: W&B itself is asked."""
    try:
        import wandb

        return wandb.Settings.model_fields["base_url"].default
    except Exception:  # not installed, or broken: then nothing will be online anyway
        return "https://api.wandb.ai"


def _route(url: str, env: Mapping[str, str]) -> tuple[str, int]:
    """The host and port a connection to `url` opens first: the proxy's, if one is set for it."""
    target = urlsplit(url)
    name = f"{target.scheme}_proxy"
    proxy = env.get(name) or env.get(name.upper())
    direct = (env.get("no_proxy") or env.get("NO_PROXY") or "").replace(" ", "").split(",")
    host = target.hostname or ""
    skip = any(entry == "*" or (entry and host.endswith(entry)) for entry in direct)
    if proxy and not skip:
        target = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return target.hostname or "", target.port or (80 if target.scheme == "http" else 443)


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False
